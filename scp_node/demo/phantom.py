"""Synthetic chest phantoms: computed pictures that look a little like a frontal film, and are named so.

They show that the path works. They say nothing about how well the model reads real films.
"""

from __future__ import annotations

import uuid
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from scp_node.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_NAMESPACE: Final = uuid.UUID("b1a55e2c-55a1-4d3a-9d55-9d3c2a0f7a11")
_LUNGS: Final = ((0.31, 0.46), (0.69, 0.46))  # centres as shares of width and height


def phantom_pixels(seed: int, *, opacity: bool, size: int = 512) -> NDArray[np.uint16]:
    """Return a 12-bit picture of shape (size, size), air dark; with `opacity` it has bright patches in the lungs."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    picture = 0.78 * _ellipse(x, y, (0.5, 0.62), (0.46, 0.62), soft=0.04)  # the trunk
    for centre in _LUNGS:
        picture -= 0.55 * _ellipse(x, y, centre, (0.145, 0.29), soft=0.05)
    picture += 0.30 * _ellipse(x, y, (0.56, 0.62), (0.15, 0.17), soft=0.05)  # the heart's shadow
    picture += 0.12 * _ellipse(x, y, (0.5, 0.5), (0.045, 0.6), soft=0.02)  # the spine
    picture += 0.04 * np.maximum(0, np.sin(34 * (y + 0.35 * (x - 0.5) ** 2))) * (picture > 0.1)  # ribs
    if opacity:
        picture += _opacities(x, y, random) * (picture > 0.15)
    picture += random.normal(0, 0.012, picture.shape)
    return (np.clip(picture, 0, 1) * 4095).astype(np.uint16)


def _opacities(x: NDArray[np.float64], y: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Return soft patches in both lungs and mottle everywhere: the demonstration model reads these as an opacity."""
    mottle = cv2.resize(random.normal(0, 0.1, (24, 24)), x.shape, interpolation=cv2.INTER_CUBIC).astype(np.float64)
    for number in range(6):
        column = _LUNGS[number % 2][0] + random.uniform(-0.05, 0.05)
        radii = (random.uniform(0.06, 0.12), random.uniform(0.06, 0.16))
        patch = _ellipse(x, y, (column, random.uniform(0.4, 0.68)), radii, soft=0.3)
        mottle += random.uniform(0.2, 0.4) * patch
    return mottle


def _ellipse(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    centre: tuple[float, float],
    radii: tuple[float, float],
    *,
    soft: float,
) -> NDArray[np.float64]:
    """Return 1 inside the ellipse and 0 outside, with an edge of width `soft` as a share of the picture."""
    distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
    edge: NDArray[np.float64] = 1 / (1 + np.exp((distance - 1) * min(radii) * 8 / soft))
    return edge


def phantom_image(seed: int, *, opacity: bool, view: str = "PA") -> Dataset:
    """Return a Computed Radiography image of a phantom, ready to save; equal arguments give equal images."""
    pixels = phantom_pixels(seed, opacity=opacity)
    image = Dataset()
    image.SOPClassUID = ComputedRadiographyImageStorage
    image.SOPInstanceUID = _uid("instance", seed, opacity, view)
    image.StudyInstanceUID = _uid("study", seed, opacity)
    image.SeriesInstanceUID = _uid("series", seed, opacity)
    image.PatientName = "PHANTOM^SYNTHETIC"
    image.PatientID = f"PHANTOM-{seed:03d}{'-OPACITY' if opacity else ''}"
    image.PatientBirthDate = "19600101"
    image.PatientSex = "O"
    image.PatientAge = "066Y"
    image.StudyDate = "20260101"
    image.StudyTime = "120000"
    image.StudyID = str(seed)
    image.AccessionNumber = f"PHANTOM{seed:03d}"
    image.ReferringPhysicianName = ""
    image.StudyDescription = "Synthetic chest phantom"
    image.Modality = "CR"
    image.BodyPartExamined = "CHEST"
    image.ViewPosition = view
    image.Manufacturer = "scp-node phantom"
    image.SeriesNumber = 1
    image.InstanceNumber = 1
    image.Laterality = ""
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.PixelSpacing = [0.8, 0.8]
    image.PixelData = pixels.tobytes()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    image.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return image


def _uid(*parts: object) -> str:
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, parts))).int}"
