"""Reads a stored file as the dataset that its sender meant."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from scp_node.dicom.part10 import repaired_file


def read_image(path: Path, *, header_only: bool = False) -> Dataset:
    """Return the dataset of a DICOM file without what libraries would misread: see `scp_node.dicom.repairs`.

    Raises:
        Exception: anything that the bytes provoke in pydicom.
    """
    repaired = repaired_file(memoryview(path.read_bytes()))
    return dcmread(path if repaired is None else BytesIO(repaired), stop_before_pixels=header_only)
