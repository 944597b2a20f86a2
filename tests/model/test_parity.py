"""A network is served with the very bytes that it was trained with, and says the same on every runtime."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from pneumonia_model.bundle import Bundle, load_bundle
from pneumonia_model.golden import golden_difference
from pneumonia_model.opening import open_backend
from pneumonia_training.films.reading import film_input
from pydicom import Dataset, config, dcmread
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    generate_uid,
)

from tests.model.images import compressed, jpeg_stream
from tests.model.serving import Fed, both_paths
from tests.scp_node.analysis.films import picture, radiograph

LEAST_FILMS: Final = 30
EVERY_REBUILT: Final = 30  # one in so many of the 245 files that were all made alike

# Files in Big Endian are not accepted by the node: a sender converts them.
SYNTAXES_OF_REAL_FILES: Final = {
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
}


class Kind(NamedTuple):
    """In which way a film is stored."""

    photometric: str
    bits: int
    signed: bool
    syntax: UID


@pytest.fixture(autouse=True)
def _values_as_they_are() -> Iterator[None]:
    with config.disable_value_validation():
        yield


@pytest.fixture(scope="module")
def released(repository: Path) -> Bundle:
    """The bundle that this repository ships."""
    (folder,) = sorted((repository / "model" / "bundles").iterdir())
    return load_bundle(folder)


def sha256(pixels: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def assert_same_bytes(fed: Fed) -> None:
    """Compare what the node's network got with the training's cache, and with `film_input`."""
    assert fed.served is not None
    as_trained = fed.trained.astype(np.float32) / np.float32(255)  # as every batch of a training is made
    assert sha256(fed.served) == sha256(as_trained), fed.read
    assert sha256(np.rint(fed.served * 255).astype(np.uint8)) == sha256(fed.trained), fed.read
    assert sha256(np.rint(film_input(fed.read) * 255).astype(np.uint8)) == sha256(fed.trained), fed.read


def kind(image: Dataset) -> Kind:
    return Kind(
        photometric=str(image.PhotometricInterpretation),
        bits=int(image.BitsStored),
        signed=bool(image.PixelRepresentation),
        syntax=UID(image.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)),
    )


def rounds(files: Iterable[Path]) -> list[dict[Path, Kind]]:
    """Return the files for one ledger after the other: the same SOP Instance UID again is a conflict, not analysed."""
    found: list[dict[Path, Kind]] = []
    seen: Counter[str] = Counter()
    for file in files:
        image = dcmread(file, force=True)
        place = seen[str(image.SOPInstanceUID)]
        seen[str(image.SOPInstanceUID)] += 1
        if place == len(found):
            found.append({})
        found[place][file] = kind(image)
    return found


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_real_films_are_served_as_the_bytes_that_a_training_reads(shared_data: Path, tmp_path: Path) -> None:
    with (shared_data / "robustness" / "manifest.csv").open(encoding="utf-8") as table:
        listed = [row for row in csv.DictReader(table) if row["action"] in {"ANALYSE", "ANALYSE_WARN"}]
    hard_cases = [shared_data / "robustness" / row["path"] for row in listed]
    others = sorted(file for file in (shared_data / "dicom").rglob("*.dcm") if file.parent.name != "rsna_rebuilt")
    rebuilt = sorted((shared_data / "dicom" / "rsna_rebuilt").glob("*.dcm"))[::EVERY_REBUILT]
    compared: dict[Path, Kind] = {}
    for number, films in enumerate(rounds([*hard_cases, *others, *rebuilt])):
        for file, fed in both_paths(list(films), tmp_path / str(number)).items():
            if fed.served is not None:  # the node refuses some of the others: children, laterals
                assert_same_bytes(fed)
                compared[file] = films[file]
    assert compared.keys() >= set(hard_cases)

    assert len(compared) >= LEAST_FILMS
    assert {of.photometric for of in compared.values()} == {"MONOCHROME1", "MONOCHROME2", "RGB"}
    assert {of.bits for of in compared.values()} == {8, 10, 12, 14, 15, 16}
    assert {of.signed for of in compared.values()} == {False, True}
    assert {of.syntax for of in compared.values()} == SYNTAXES_OF_REAL_FILES


NATIVE: Final = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
ENCODERS: Final = {RLELossless: "pydicom", JPEG2000Lossless: "pylibjpeg", JPEGLSLossless: "pyjpegls"}


def made(of: Kind) -> Dataset:
    """Return a chest film made in code, stored in that way."""
    stored = picture(rows=320, columns=288, largest=2**of.bits - 1).astype(np.int64)
    if of.photometric == "MONOCHROME1":
        stored = 2**of.bits - 1 - stored
    if of.signed:
        stored -= 2 ** (of.bits - 1)
    allocated = 8 if of.bits == 8 else 16
    pixels = stored.astype(f"<{'i' if of.signed else 'u'}{allocated // 8}")
    image = radiograph(
        SOPInstanceUID=generate_uid(entropy_srcs=[str(of)]),
        Rows=pixels.shape[0],
        Columns=pixels.shape[1],
        PhotometricInterpretation=of.photometric,
        BitsAllocated=allocated,
        BitsStored=of.bits,
        HighBit=of.bits - 1,
        PixelRepresentation=int(of.signed),
        PixelData=pixels.tobytes(),
    )
    image["PixelData"].VR = "OB" if allocated == 8 else "OW"
    if of.syntax in NATIVE:
        image.file_meta.TransferSyntaxUID = of.syntax
    elif of.syntax == JPEGBaseline8Bit:
        compressed(image, jpeg_stream(pixels), JPEGBaseline8Bit)
    else:
        image.compress(of.syntax, encoding_plugin=ENCODERS[of.syntax], generate_instance_uid=False)
    return image


def every_kind() -> list[Kind]:
    kinds = [
        Kind(*of)
        for of in product(("MONOCHROME1", "MONOCHROME2"), (8, 10, 12, 16), (False, True), (*NATIVE, *ENCODERS))
    ]
    return [*kinds, *(Kind(photometric, 8, False, JPEGBaseline8Bit) for photometric in ("MONOCHROME1", "MONOCHROME2"))]


def test_made_films_are_served_as_the_bytes_that_a_training_reads(tmp_path: Path) -> None:
    files: dict[Path, Kind] = {}
    for number, of in enumerate(every_kind()):
        file = tmp_path / f"{number:03}.dcm"
        made(of).save_as(file, enforce_file_format=True)
        files[file] = of
        assert kind(dcmread(file)) == of
    found = both_paths(list(files), tmp_path)
    for file, of in files.items():
        assert file in found, of
        assert found[file].served is not None, of
        assert_same_bytes(found[file])
    assert Counter(of.bits for of in files.values()) == {8: 22, 10: 20, 12: 20, 16: 20}


def test_made_films_look_the_same_however_they_are_stored(tmp_path: Path) -> None:
    """Were all films black, they would have the same bytes on both paths, too."""
    inputs = []
    for number, of in enumerate(every_kind()):
        file = tmp_path / f"{number:03}.dcm"
        made(of).save_as(file, enforce_file_format=True)
        inputs.append(film_input(file))
    assert np.abs(np.stack(inputs) - inputs[0]).max() * 255 <= 5
    assert inputs[0].std() > 0.1


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_golden_logits_are_the_same_on_every_runtime_with_any_number_of_threads(
    released: Bundle, name: Literal["onnxruntime", "torch"], threads: int
) -> None:
    assert golden_difference(released, open_backend(released, name, "cpu", threads=threads)) <= 1e-4
