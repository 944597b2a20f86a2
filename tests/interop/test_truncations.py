"""A real film that is cut off anywhere is never acknowledged: its sender keeps it, and sends it again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from pydicom import Dataset, dcmread
from pydicom.misc import is_dicom
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from scp_node.dicom.encoding import Walker
from scp_node.dicom.syntaxes import IMPLICIT_VR_LITTLE_ENDIAN
from tests.scp_node.listener.conftest import Running
from tests.scp_node.listener.datasets import encoded
from tests.scp_node.listener.peer import EXPLICIT, Peer

SOURCES: Final = ("rsna_original", "rsna_rebuilt", "nih_google", "nih_udacity", "real_cr")  # the smallest film of each
SYNTAXES: Final = (EXPLICIT, IMPLICIT_VR_LITTLE_ENDIAN, RLELossless, JPEGLSLossless, JPEG2000Lossless)
CUTS: Final = 40  # of each film in each syntax: 1,000 in all


def dataset_in(film: Dataset, syntax: str) -> bytes:
    """Return a film without file meta information, in a transfer syntax."""
    if film.file_meta.TransferSyntaxUID.is_compressed:
        film.decompress(generate_instance_uid=False)
    if syntax not in {EXPLICIT, IMPLICIT_VR_LITTLE_ENDIAN}:
        film.compress(syntax, generate_instance_uid=False)
    return encoded(film, implicit=syntax == IMPLICIT_VR_LITTLE_ENDIAN)


def cuts(dataset: bytes, syntax: str, seed: int) -> Iterator[int]:
    """Yield lengths that are too short: half of them end with an element, where the dataset looks whole."""
    draw = random.Random(seed)
    walker = Walker(memoryview(dataset), implicit=syntax == IMPLICIT_VR_LITTLE_ENDIAN)
    ends = [element.end for element in walker.elements()][:-1]
    for number in range(CUTS):
        yield draw.choice(ends) if number % 2 else draw.randrange(len(dataset))


@pytest.mark.parametrize("source", SOURCES)
def test_a_film_that_is_cut_off_is_refused_and_the_whole_one_is_taken(
    running: Running, shared_data: Path, source: str
) -> None:
    films = [path for path in (shared_data / "dicom" / source).glob("*.dcm") if is_dicom(path)]
    file = min(films, key=lambda path: path.stat().st_size)
    for number, syntax in enumerate(SYNTAXES):
        film = dcmread(file)
        film.SOPInstanceUID = f"{film.SOPInstanceUID[:60]}.{number}"
        sop_class, sop_instance = str(film.SOPClassUID), str(film.SOPInstanceUID)
        dataset = dataset_in(film, syntax)
        with running.peer(contexts=[(sop_class, [syntax])]) as peer:

            def status(part: bytes, peer: Peer = peer, names: tuple[str, str] = (sop_class, sop_instance)) -> int:
                return peer.store(part, sop_class=names[0], sop_instance=names[1]).status

            answers = {length: status(dataset[:length]) for length in cuts(dataset, syntax, seed=number)}
            assert {length: hex(answer) for length, answer in answers.items() if answer != 0xC000} == {}
            assert status(dataset) == 0x0000
    assert len(running.received) == len(SYNTAXES)
