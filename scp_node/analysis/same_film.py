"""Compares two files with one SOP Instance UID: one film in two encodings, or two films."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from pneumonia_model.decoding import UnreadablePixels, decode, pixel_layout
from pneumonia_model.preprocessing import display_words
from pydicom.dataset import Dataset

from scp_node.analysis.answers import Equipment
from scp_node.analysis.attributes import UnreadableAttributeError, code, undisturbed_reading
from scp_node.analysis.eligibility import assess_header
from scp_node.analysis.files import read_image
from scp_node.dicom.encoding import DamagedError
from scp_node.dicom.foreign import foreign_bytes
from scp_node.settings import AnalysisSettings

# What a report takes from a film: whose it is, and what decides whether and how it is read. Another value of any of
# them could change the report.
_COMPARED: Final = (
    "SOPClassUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "AccessionNumber",
    "StudyDate",
    "Modality",
    "BodyPartExamined",
    "ViewPosition",
    "Laterality",
    "ImageLaterality",
    "PatientOrientation",
    "ImageType",
    "PresentationIntentType",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "BurnedInAnnotation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "PixelSpacing",
    "ImagerPixelSpacing",
)
_EXACTLY: Final = ("PatientID", "IssuerOfPatientID")  # in their case


def same_film(path: Path, other: Path, rules: AnalysisSettings, own: Equipment | None = None) -> bool:
    """Return whether two files hold the same picture of the same patient; False where that cannot be told.

    Whose it is and whether it is within the intended use is compared, too. The picture is compared as stored values and
    as a viewer shows it, so that a file with another window is another film. Other attributes, such as those that an
    archive adds, may differ. Pixels that cannot be decoded are the same if their bytes are.

    Raises:
        MemoryError: the process may not use the memory that the images need.
    """
    with undisturbed_reading():
        try:
            with foreign_bytes(as_=DamagedError("not comparable"), passing=MemoryError):
                one, two = read_image(path), read_image(other)
                if _identity(one) != _identity(two) or assess_header(one, rules, own) != assess_header(two, rules, own):
                    return False
                return _same_picture(one, two)
        except (OSError, DamagedError, UnreadableAttributeError):
            return False


def _identity(image: Dataset) -> list[str]:
    exactly = [str(image.get(keyword) or "").strip(" \0") for keyword in _EXACTLY]
    return [*exactly, *(code(image, keyword) for keyword in _COMPARED)]


def _same_picture(one: Dataset, two: Dataset) -> bool:
    try:
        return _same_pixels(one, two)
    except UnreadablePixels:
        same_syntax = one.file_meta.TransferSyntaxUID == two.file_meta.TransferSyntaxUID
        return same_syntax and bool(one.get("PixelData")) and one.PixelData == two.get("PixelData")


def _same_pixels(one: Dataset, two: Dataset) -> bool:
    layouts = (pixel_layout(one), pixel_layout(two))
    first, second = (decode(image, layout) for image, layout in zip((one, two), layouts, strict=True))
    if not np.array_equal(first.values(), second.values()):
        return False
    return np.array_equal(display_words(one, layouts[0], first).greys, display_words(two, layouts[1], second).greys)
