"""The analysis of one image around the network: from file to input, and from output to finding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import cv2
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from scp_node.analysis.answers import Equipment, Film, Picture, Prepared
from scp_node.analysis.attributes import undisturbed_reading
from scp_node.analysis.eligibility import assess_header
from scp_node.analysis.files import read_image
from scp_node.analysis.film import film
from scp_node.analysis.pixels import picture, prepare
from scp_node.dicom.encoding import DamagedError
from scp_node.dicom.foreign import foreign_bytes
from scp_node.domain import Finding, NotAnalysed, Note, Reason
from scp_node.settings import AnalysisSettings

_Shown = TypeVar("_Shown")

_UNDEFINED_LENGTH: Final = 0xFFFFFFFF  # PS3.5 7.1.1


def analyse_file(path: Path, rules: AnalysisSettings, own: Equipment | None = None) -> Prepared | NotAnalysed:
    """Return the network's input from a DICOM file, or the reason why the image gets no score.

    Do not call it in a process in which other threads use pydicom: see `undisturbed_reading`. The node calls it through
    a `DecoderPool`, which also survives the crash of a decoder.

    Raises:
        MemoryError: the process may not use the memory that this image needs.
    """
    with undisturbed_reading():
        try:
            with foreign_bytes(as_=DamagedError("not a DICOM file"), passing=OSError):
                image = read_image(path)
                header = image or read_image(path, header_only=True)
        except OSError as error:
            return NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail=f"file: {type(error).__name__}")
        except DamagedError as error:
            return NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail=str(error))
        if image:
            return analyse(image, rules, own)
        # pydicom returns an empty dataset if encapsulated pixel data has no end
        noted = assess_header(header, rules, own)
        if isinstance(noted, NotAnalysed):
            return noted
        return NotAnalysed(reason=Reason.UNREADABLE_PIXELS, detail="file ends within the pixel data")


def picture_file(path: Path) -> Picture | NotAnalysed:
    """Return the picture of a DICOM file that was analysed before, or the reason why that is no longer possible.

    The limits of `analyse_file` hold here as well, and so does what it raises.
    """
    return _of_file(path, picture)


def film_file(path: Path, *, full: bool) -> Film | NotAnalysed:
    """Return a DICOM file for a viewer, also one outside the intended use, or the reason why it cannot be read.

    See `film`. The limits of `analyse_file` hold here as well, and so does what it raises.
    """
    return _of_file(path, lambda image: film(image, full=full))


def _of_file(path: Path, show: Callable[[Dataset], _Shown]) -> _Shown | NotAnalysed:
    with undisturbed_reading():
        try:
            with foreign_bytes(as_=DamagedError("not readable again"), passing=(OSError, MemoryError, cv2.error)):
                return show(read_image(path))
        except OSError as error:
            return NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail=f"file: {type(error).__name__}")
        except DamagedError as error:
            return NotAnalysed(reason=Reason.UNREADABLE_PIXELS, detail=str(error))


def analyse(image: Dataset, rules: AnalysisSettings, own: Equipment | None = None) -> Prepared | NotAnalysed:
    """Return the network's input from a dataset, or the reason why the image gets no score."""
    noted = assess_header(image, rules, own)
    if isinstance(noted, NotAnalysed):
        return noted
    prepared = prepare(image)
    if isinstance(prepared, Prepared):
        return replace(prepared, notes=tuple(note for note in Note if note in {*noted, *prepared.notes}))
    if prepared.reason is Reason.NOT_AN_IMAGE and _is_cut(image):
        return NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail="ends before the pixel data")
    return prepared


def conclude(
    prepared: Prepared, *, logit: float, probability: float, threshold: float, grey_zone: float = 0.0
) -> Finding | NotAnalysed:
    """Return the finding; if the network gave no usable value, such as NaN, return that instead of a verdict."""
    logit, probability, threshold = float(logit), float(probability), float(threshold)
    usable = math.isfinite(logit) and 0 <= probability <= 1 and 0 <= threshold <= 1  # False for NaN
    if not usable:
        return NotAnalysed(reason=Reason.INFERENCE, detail="logit, probability or threshold out of range")
    return Finding(
        probability=probability,
        logit=logit,
        threshold=threshold,
        grey_zone=grey_zone,
        notes=prepared.notes,
        input_stats=prepared.input_stats,
    )


def _is_cut(image: Dataset) -> bool:
    """Return whether an element is shorter than it declares: pydicom reads a cut file as far as it goes."""
    raw = (element for element in image.elements() if isinstance(element, RawDataElement))
    return any(len(e.value or b"") < e.length != _UNDEFINED_LENGTH for e in raw)
