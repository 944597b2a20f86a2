"""Decides from the header alone whether an image is within the intended use.

The rules run in the order of `_RULES`, and the first reason is recorded. If coded attributes contradict each other, the
image is outside: no score is better than a wrong one. The description of the study counts only if the image and its
series say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from pneumonia_model.decoding import UnreadablePixels, one_frame, pixel_form
from pydicom.dataset import Dataset

from scp_node.analysis.attributes import UnreadableAttributeError, code, description, integer, items, named
from scp_node.analysis.patient_age import OLDEST_PLAUSIBLE_AGE, stated_ages
from scp_node.analysis.refusals import refusal
from scp_node.analysis.vocabulary import Statement, coded_body_part, coded_view, described_body_part, described_view
from scp_node.domain import NotAnalysed, Note, Reason
from scp_node.settings import AnalysisSettings

# PS3.4 Table B.5-1. Secondary Capture is here because every film of the RSNA challenge has this class.
_ACCEPTED_SOP_CLASSES: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography Image Storage
        "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray Image Storage - For Presentation
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image Storage
    }
)
_FOR_PROCESSING_SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.1.1.1.1"  # Digital X-Ray Image Storage - For Processing
_MULTI_FRAME_SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7."  # PS3.4 Table B.5-1: .1 to .4

# PS3.16 CID 4031 and CID 4010, SNOMED CT and the older SNOMED RT identifiers
_CHEST_CODES: Final = frozenset({"816094009", "51185008", "39607008", "T-D3000", "T-28000"})
_FRONTAL_CODES: Final = frozenset({"399348003", "272479007", "399033003", "R-10206", "R-40888", "R-10202"})
_HUMAN_CODES: Final = frozenset({"337915000", "L-85003"})  # PS3.16 CID 7454
_HUMAN: Final = frozenset({"HUMAN", "HOMO SAPIENS"})

# These are closer to the image than StudyDescription, which covers several images.
_SERIES_TEXTS: Final = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """The manufacturer and model that an object names; here, those of this node."""

    manufacturer: str
    model_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    header: Dataset
    rules: AnalysisSettings
    own: Equipment | None


_Answer = NotAnalysed | Note | None
_Rule = Callable[[_Question], _Answer]


def assess_header(
    header: Dataset, rules: AnalysisSettings, own: Equipment | None = None
) -> tuple[Note, ...] | NotAnalysed:
    """Return the reason why the image gets no score, or the notes for its result.

    Args:
        header: the dataset, with or without pixel data.
        rules: the intended use.
        own: the signature of this node's objects, so that it never analyses them.
    """
    question = _Question(header=header, rules=rules, own=own)
    notes = []
    for rule in _RULES:
        try:
            answer = rule(question)
        except UnreadableAttributeError as unreadable:
            return NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail=str(unreadable))
        if isinstance(answer, NotAnalysed):
            return answer
        if answer is not None:
            notes.append(answer)
    return tuple(notes)


def _own_object(question: _Question) -> _Answer:
    header, own = question.header, question.own
    if own is None:
        return None
    maker = (code(header, "Manufacturer"), code(header, "ManufacturerModelName"))
    if maker != (own.manufacturer.strip().upper(), own.model_name.strip().upper()):
        return None
    return NotAnalysed(reason=Reason.OWN_OBJECT, detail="Manufacturer, ManufacturerModelName")


def _modality(question: _Question) -> _Answer:
    modality = code(question.header, "Modality")
    if not modality and not code(question.header, "SOPClassUID"):
        return NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail="SOPClassUID and Modality missing")
    if modality in question.rules.modalities:
        return None
    return NotAnalysed(reason=Reason.MODALITY, detail=named("Modality", modality) if modality else "Modality missing")


def _sop_class(question: _Question) -> _Answer:
    uid = code(question.header, "SOPClassUID")
    if uid in _ACCEPTED_SOP_CLASSES:
        return None
    if not uid:
        return NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail="SOPClassUID missing")
    if uid == _FOR_PROCESSING_SOP_CLASS:
        return NotAnalysed(reason=Reason.FOR_PROCESSING, detail="SOPClassUID")
    if uid.startswith(_MULTI_FRAME_SECONDARY_CAPTURE):
        return NotAnalysed(reason=Reason.MULTI_FRAME, detail="SOPClassUID")
    is_image = "Rows" in question.header
    return NotAnalysed(reason=Reason.MODALITY if is_image else Reason.NOT_AN_IMAGE, detail="SOPClassUID")


def _presentation_intent(question: _Question) -> _Answer:
    if code(question.header, "PresentationIntentType") != "FOR PROCESSING":
        return None
    return NotAnalysed(reason=Reason.FOR_PROCESSING, detail="PresentationIntentType")


def _frames(question: _Question) -> _Answer:
    try:
        one_frame(question.header)
    except UnreadablePixels as unreadable:
        return refusal(unreadable)
    return None  # the reading of the pixels notes a number that is 0


def _species(question: _Question) -> _Answer:
    header = question.header
    animal = [keyword for keyword in ("PatientBreedDescription", "PatientSexNeutered") if code(header, keyword)]
    if code(header, "PatientSpeciesDescription") not in {"", *_HUMAN}:
        animal.append("PatientSpeciesDescription")
    if any(code(item, "CodeValue") not in _HUMAN_CODES for item in items(header, "PatientSpeciesCodeSequence")):
        animal.append("PatientSpeciesCodeSequence")
    return NotAnalysed(reason=Reason.SPECIES, detail=animal[0]) if animal else None


def _body_part(question: _Question) -> _Answer:
    header = question.header
    stated = code(header, "BodyPartExamined")
    coded = [
        (named("BodyPartExamined", stated), coded_body_part(stated)),
        *_coded_items(header, "AnatomicRegionSequence", _CHEST_CODES, coded_body_part),
    ]
    described = [(keyword, described_body_part(description(header, keyword))) for keyword in _SERIES_TEXTS]
    # CHEST may be a room's default for every film, so the description of the series may still contradict it.
    if outside := _first_outside([*coded, *described]):
        return NotAnalysed(reason=Reason.BODY_PART, detail=outside)
    if _any_inside([*coded, *described]):
        return None
    study = described_body_part(description(header, "StudyDescription"))
    if study is Statement.OUTSIDE:
        return NotAnalysed(reason=Reason.BODY_PART, detail="StudyDescription")
    return None if study is Statement.INSIDE else Note.BODY_PART_MISSING


def _view(question: _Question) -> _Answer:
    header = question.header
    stated = code(header, "ViewPosition")
    coded = [
        (named("ViewPosition", stated), coded_view(stated)),
        *_coded_items(header, "ViewCodeSequence", _FRONTAL_CODES, coded_view),
        ("PatientOrientation", _oriented_view(code(header, "PatientOrientation"))),
    ]
    if outside := _first_outside(coded):
        return NotAnalysed(reason=Reason.VIEW, detail=outside)
    if _any_inside(coded):
        return None  # descriptions do not count: a series often holds both views under that of its first image
    described = [(keyword, described_view(description(header, keyword))) for keyword in _SERIES_TEXTS]
    if outside := _first_outside(described):
        return NotAnalysed(reason=Reason.VIEW, detail=outside)
    if _any_inside(described):
        return None
    # "CHEST LAT" rules out all images of a study; "CHEST PA" does not say that this image is the frontal one.
    if described_view(description(header, "StudyDescription")) is Statement.OUTSIDE:
        return NotAnalysed(reason=Reason.VIEW, detail="StudyDescription")
    return Note.VIEW_MISSING


def _age(question: _Question) -> _Answer:
    stated = list(stated_ages(question.header))
    for keyword, age in stated:
        if 0 <= age <= OLDEST_PLAUSIBLE_AGE:
            too_young = age < question.rules.minimum_age
            return NotAnalysed(reason=Reason.PATIENT_AGE, detail=keyword) if too_young else None
    return Note.AGE_IMPLAUSIBLE if stated else Note.AGE_MISSING


def _colour(question: _Question) -> _Answer:
    try:
        pixel_form(question.header)  # of three samples only the pixels can tell whether they are equal
    except UnreadablePixels as unreadable:
        return refusal(unreadable)
    return None


def _size(question: _Question) -> _Answer:
    for keyword in ("Rows", "Columns"):
        side = integer(question.header, keyword)
        if side is None:
            return NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail=f"{keyword} missing")
        if not question.rules.minimum_pixels <= side <= question.rules.maximum_pixels:
            return NotAnalysed(reason=Reason.IMAGE_SIZE, detail=f"{keyword} {side}")
    return None


def _burned_in(question: _Question) -> _Answer:
    return Note.BURNED_IN_ANNOTATION if code(question.header, "BurnedInAnnotation") == "YES" else None


_RULES: Final[tuple[_Rule, ...]] = (
    _own_object,
    _modality,
    _sop_class,
    _presentation_intent,
    _frames,
    _species,
    _body_part,
    _view,
    _age,
    _colour,
    _size,
    _burned_in,
)


def _coded_items(
    header: Dataset, keyword: str, inside: frozenset[str], say: Callable[[str], Statement]
) -> list[tuple[str, Statement]]:
    statements = []
    for item in items(header, keyword):
        known = code(item, "CodeValue") in inside
        statements.append((keyword, Statement.INSIDE if known else say(code(item, "CodeMeaning"))))
    return statements


def _oriented_view(orientation: str) -> Statement:
    # PS3.3 C.7.6.1.1.1: rows of a frontal film run left-right. If rows or columns run front to back, the film was taken
    # from the side. "L\F" proves nothing: consoles send it with every film.
    front_to_back = any(direction[0] in "AP" for direction in orientation.split())
    return Statement.OUTSIDE if front_to_back else Statement.SILENT


def _first_outside(statements: Iterable[tuple[str, Statement]]) -> str | None:
    return next((detail for detail, statement in statements if statement is Statement.OUTSIDE), None)


def _any_inside(statements: Iterable[tuple[str, Statement]]) -> bool:
    return any(statement is Statement.INSIDE for _, statement in statements)
