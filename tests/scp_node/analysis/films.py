"""Radiographs made in code: a picture like a chest film's, and the header of an ordinary digital X-ray."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

DX_FOR_PRESENTATION: Final = "1.2.840.10008.5.1.4.1.1.1.1"
MISSING: Final = None  # as an attribute's value: leave the attribute out


@cache
def picture(rows: int = 512, columns: int = 512, *, largest: int = 255) -> NDArray[np.uint16]:
    """Return stored values like those of a chest film: bright body, two dark lungs, ribs, noise."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    body = 0.75 * np.exp(-((x / 0.9) ** 6) - (y / 1.1) ** 8)
    lungs = np.exp(-(((np.abs(x) - 0.4) / 0.28) ** 4) - ((y + 0.1) / 0.6) ** 4)
    ribs = 0.06 * np.sin(18 * y + 4 * np.abs(x))
    noise = np.random.default_rng(0).normal(0, 0.02, x.shape)
    film = np.clip(0.05 + body - 0.5 * lungs + ribs * body + noise, 0, 1)
    stored: NDArray[np.uint16] = np.round(film * largest).astype(np.uint16)
    stored.flags.writeable = False
    return stored


def radiograph(**attributes: Any) -> Dataset:
    """Return an adult's frontal chest film, 8 bit; attributes replace the usual ones, None leaves one out."""
    pixels = picture().astype(np.uint8)
    usual = {
        "SOPClassUID": DX_FOR_PRESENTATION,
        "SOPInstanceUID": generate_uid(entropy_srcs=["film"]),
        "StudyInstanceUID": generate_uid(entropy_srcs=["study"]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=["series"]),
        "Modality": "DX",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PatientName": "Doe^Jane",
        "PatientID": "4711",
        "PatientAge": "064Y",
        "StudyDate": "20240102",
        "PresentationIntentType": "FOR PRESENTATION",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
    }
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword, value in {**usual, **attributes}.items():
        if value is not MISSING:
            setattr(image, keyword, value)
    return image


def save(image: Dataset, path: Path) -> Path:
    """Write a Part 10 file and return its path."""
    image.save_as(path, enforce_file_format=True)
    return path
