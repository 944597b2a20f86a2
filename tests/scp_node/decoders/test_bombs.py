"""Files that want to be far larger than they are: each is refused in little memory, and the next film is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from scp_node.analysis.answers import Prepared
from scp_node.decoders import DecoderPool
from scp_node.domain import NotAnalysed, Reason
from scp_node.settings import AnalysisSettings
from tests.scp_node.analysis.films import radiograph, save
from tests.scp_node.decoders.bombs import BOMBS, BURDENED, bomb, decoder_process, peak_mib

MOST_MIB: Final = 1_024
REFUSALS: Final = {Reason.UNREADABLE_PIXELS, Reason.IMAGE_SIZE, Reason.MULTI_FRAME, Reason.DISPLAY_ATTRIBUTES}
# Its header is one that the largest film may have, and a stream as short may be a black one: it is decoded.
DECODED: Final = "JPEG 2000: SIZ and attributes of 8192"


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecoderPool]:
    """One decoder process as the node has it."""
    with DecoderPool(AnalysisSettings(), processes=1) as pool:
        yield pool


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(radiograph(), tmp_path_factory.mktemp("good") / "film.dcm")


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_and_the_same_decoder_reads_the_next_film(
    decoder: DecoderPool, film: Path, name: str, tmp_path: Path
) -> None:
    assert isinstance(decoder.prepare_many([film])[0], Prepared)
    process = decoder_process(decoder)
    (outcome,) = decoder.prepare_many([save(bomb(name), tmp_path / "bomb.dcm")])
    assert isinstance(outcome, NotAnalysed)
    assert outcome.reason in (REFUSALS if name != DECODED else {Reason.IMPLAUSIBLE_PIXELS})
    assert isinstance(decoder.prepare_many([film])[0], Prepared)
    assert decoder_process(decoder) == process
    assert peak_mib(process) < MOST_MIB


@pytest.mark.parametrize("name", BURDENED)
def test_a_whole_film_is_read_through_what_a_decoder_passes_over(
    decoder: DecoderPool, name: str, tmp_path: Path
) -> None:
    (outcome,) = decoder.prepare_many([save(bomb(name), tmp_path / "film.dcm")])
    assert isinstance(outcome, Prepared)
