"""A decoder has what decoding needs: no network, no other program or process, and no file that it could write."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, JPEGLossless

from scp_node.analysis.analyse import analyse_file
from scp_node.analysis.answers import Prepared
from scp_node.decoders import DecoderPool
from scp_node.decoders.confinement import gaps_here
from scp_node.dicom.syntaxes import TRANSFER_SYNTAXES
from scp_node.domain import NotAnalysed, Reason
from scp_node.settings import AnalysisSettings
from tests.model import images
from tests.scp_node.analysis.films import picture, radiograph, save
from tests.scp_node.decoders.misbehaving_decoder import TRIES
from tests.scp_node.decoders.test_pool import MISBEHAVING

READS_MEMORY: Final = "read-memory"
WITHOUT_DAMAGE: Final = ("open-socket", "spawn", "create", "overwrite", "rename", "signal-the-node", READS_MEMORY)

GAPS: Final = gaps_here()
pytestmark = pytest.mark.skipif(bool(GAPS.calls), reason=GAPS.calls)


@pytest.fixture(scope="module")
def confined() -> Iterator[DecoderPool]:
    """A decoder process as the node has it, with deeds of its own."""
    with DecoderPool(AnalysisSettings(), processes=1, program=MISBEHAVING) as pool:
        yield pool


def in_every_syntax() -> dict[str, Dataset]:
    """Return one film, 12 bits, in each transfer syntax that the node accepts."""
    words = np.array(picture(largest=4095))
    implicit, process_14 = images.radiograph(words, bits=12), images.jpeg_lossless_words(words, bits=12)
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    process_14.file_meta.TransferSyntaxUID = JPEGLossless
    stored = [
        implicit,
        process_14,
        images.radiograph(words, bits=12),
        images.rle(words, bits=12),
        images.jpeg(picture().astype(np.uint8)),
        images.jpeg_extended(words, bits=12),
        images.jpeg_lossless_words(words, bits=12),
        images.jpeg_ls(words, bits=12),
        images.jpeg_ls_words(words, bits=12, error=2),
        images.jpeg2000(words, bits=12),
        images.jpeg2000_91(words, bits=12, ratio=4),
    ]
    return {str(image.file_meta.TransferSyntaxUID): image for image in stored}


def tried(pool: DecoderPool, attempt: str, folder: Path) -> str:
    """Return what came of an attempt in a decoder process."""
    (outcome,) = pool.prepare_many([save(radiograph(), folder / f"{attempt}.dcm")])
    assert isinstance(outcome, NotAnalysed)
    assert outcome.reason is Reason.INFERENCE, outcome.detail
    return outcome.detail


@pytest.mark.parametrize("attempt", [attempt for attempt in TRIES if attempt != READS_MEMORY])
def test_what_decoding_does_not_need_is_refused(confined: DecoderPool, attempt: str, tmp_path: Path) -> None:
    assert tried(confined, attempt, tmp_path) == "EPERM"
    assert [file.name for file in tmp_path.iterdir()] == [f"{attempt}.dcm"]


@pytest.mark.skipif(bool(GAPS.domain), reason=GAPS.domain)
def test_the_memory_of_the_node_is_not_read_there(confined: DecoderPool, tmp_path: Path) -> None:
    assert tried(confined, READS_MEMORY, tmp_path) == "EACCES"


def test_a_decoder_that_is_not_confined_may_do_all_of_it(tmp_path: Path) -> None:
    with DecoderPool(AnalysisSettings(confine_decoders=False), processes=1, program=MISBEHAVING) as pool:
        done = {attempt: tried(pool, attempt, tmp_path) for attempt in WITHOUT_DAMAGE}
    assert done == dict.fromkeys(WITHOUT_DAMAGE, "done")


def test_every_transfer_syntax_is_decoded_as_it_is_without_the_filter(confined: DecoderPool, tmp_path: Path) -> None:
    films = in_every_syntax()
    assert films.keys() == TRANSFER_SYNTAXES.keys()
    for syntax, film in films.items():
        radiograph_header = radiograph()
        radiograph_header.update({element.tag: element for element in film})
        radiograph_header.file_meta = film.file_meta
        path = save(radiograph_header, tmp_path / f"{syntax}.dcm")
        (there,), here = confined.prepare_many([path]), analyse_file(path, AnalysisSettings())
        assert isinstance(there, Prepared), syntax
        assert isinstance(here, Prepared), syntax
        assert np.array_equal(there.inputs, here.inputs), syntax


def test_a_name_in_any_character_set_is_read_there(confined: DecoderPool, tmp_path: Path) -> None:
    """Python loads a codec when it is first asked for, from a library that the decoder has to open."""
    for charset in ("ISO_IR 100", "ISO_IR 192", "ISO_IR 13", "\\ISO 2022 IR 87", "\\ISO 2022 IR 149", "GB18030"):
        film = radiograph(SpecificCharacterSet=charset, SeriesDescription="frontal")
        assert isinstance(confined.prepare_many([save(film, tmp_path / "film.dcm")])[0], Prepared), charset


def test_asking_whether_it_is_possible_confines_nobody() -> None:
    code = (
        "from scp_node.decoders.confinement import gaps_here; import os, socket; gaps = gaps_here(); "
        "socket.socket().close(); open(f'/proc/{os.getppid()}/mem').close(); print(gaps)"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == repr(GAPS)


def test_without_libseccomp_films_are_read_as_before_and_doctor_says_so(tmp_path: Path) -> None:
    (tmp_path / "pyseccomp.py").write_text('raise RuntimeError("Unable to find libseccomp")\n')
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
    examine = (
        "from scp_node.cli.doctor import examine_decoders; from scp_node.settings import AnalysisSettings; "
        "print(examine_decoders(AnalysisSettings()).message)"
    )
    asked = subprocess.run([sys.executable, "-c", code + examine], capture_output=True, text=True, check=True)
    assert asked.stdout == "not confined, films are read as before: libseccomp is not installed\n"
    program = ("-c", code + "from scp_node.decoders.program import main; sys.argv[1:] = sys.argv[-1:]; main()")
    with DecoderPool(AnalysisSettings(), processes=1, program=program) as pool:
        assert isinstance(pool.prepare_many([save(radiograph(), tmp_path / "film.dcm")])[0], Prepared)
