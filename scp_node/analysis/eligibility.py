"""Decides from the header alone whether an image is within the intended use.

The rules run in the order of `_RULES`, and the first reason is recorded. If coded attributes contradict each other, the
image is outside: no score is better than a wrong one. The description of the study counts only if the image and its
series say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pneumonia_model.decoding import UnreadablePixels, one_frame, pixel_form
from pydicom.dataset import Dataset

from scp_node.analysis.answers import Equipment
from scp_node.analysis.attributes import (
    UnreadableAttributeError,
    code,
    description,
    integer,
    items,
    meanings,
    named,
    readable_items,
    values,
)
from scp_node.analysis.made_pictures import made_picture
from scp_node.analysis.orientation import Orientation, stated_orientation
from scp_node.analysis.patient_age import MOST_APART, StatedAge, ages_by_birth_date, is_plausible, stated_age
from scp_node.analysis.refusals import refusal
from scp_node.analysis.vocabulary import (
    Statement,
    coded_body_part,
    coded_view,
    described_body_part,
    described_view,
    is_childs_age,
    names_a_child,
    names_an_animals_chest,
    names_no_animal,
)
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

# These are closer to the image than the texts of its study, which cover several images.
_SERIES_TEXTS: Final = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription", "ViewName")
_COMMENTS: Final = ("ImageComments", "AcquisitionComments")
_SERIES_CODES: Final = ("SeriesDescriptionCodeSequence", "PerformedProtocolCodeSequence")
_STUDY_TEXTS: Final = ("StudyDescription", "PerformedProcedureStepDescription", "RequestedProcedureDescription")
_STUDY_CODES: Final = ("ProcedureCodeSequence", "RequestedProcedureCodeSequence")
_REQUEST_TEXTS: Final = ("ScheduledProcedureStepDescription", "RequestedProcedureDescription")
_REQUEST_CODES: Final = ("ScheduledProtocolCodeSequence", "RequestedProcedureCodeSequence")


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
    if code(question.header, "PresentationIntentType").replace("_", " ") != "FOR PROCESSING":
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
    named_in = ("PatientBreedDescription", "PatientSexNeutered", "PatientSpeciesDescription")
    animal = [keyword for keyword in named_in if not names_no_animal(code(header, keyword))]
    if not all(map(_is_human, items(header, "PatientSpeciesCodeSequence"))):
        animal.append("PatientSpeciesCodeSequence")
    titles = [("BodyPartExamined", code(header, "BodyPartExamined")), *_series_texts(header)]
    animal += [keyword for keyword, text in titles if names_an_animals_chest(text)]
    return NotAnalysed(reason=Reason.SPECIES, detail=animal[0]) if animal else None


def _is_human(species: Dataset) -> bool:
    value = code(species, "CodeValue")
    return value in _HUMAN_CODES or (names_no_animal(value) and names_no_animal(code(species, "CodeMeaning")))


def _made_picture(question: _Question) -> _Answer:
    header = question.header
    if _first_outside(_coded_parts(header)):
        return None  # the body part is the truer reason
    views = [*_coded_views(header), *_stated(_series_texts(header), described_view)]
    source = made_picture(header, states_a_frontal_view=_any_inside(views))
    return NotAnalysed(reason=Reason.NOT_A_PLAIN_FILM, detail=source) if source else None


def _body_part(question: _Question) -> _Answer:
    header = question.header
    stated = [*_coded_parts(header), *_stated(_series_texts(header), described_body_part)]
    # CHEST may be a room's default for every film, so the description of the series may still contradict it.
    if outside := _first_outside(stated):
        return NotAnalysed(reason=Reason.BODY_PART, detail=outside)
    if _any_inside(stated):
        return None
    of_study = _stated(_study_texts(header), described_body_part)
    if outside := _first_outside(of_study):
        return NotAnalysed(reason=Reason.BODY_PART, detail=outside)
    return None if _any_inside(of_study) else Note.BODY_PART_MISSING


def _view(question: _Question) -> _Answer:
    header = question.header
    of_part = ("BodyPartExamined", described_view(code(header, "BodyPartExamined")))  # "CHEST LAT"
    coded = _coded_views(header)
    if outside := _first_outside([*coded, of_part]):
        return NotAnalysed(reason=Reason.VIEW, detail=outside)
    if _any_inside(coded):
        return None  # descriptions do not count: a series often holds both views under that of its first image
    described = _stated(_series_texts(header), described_view)
    comments = _stated(_texts(header, _COMMENTS, ()), described_view)  # they prove no frontal view
    if outside := _first_outside([*described, *comments]):
        return NotAnalysed(reason=Reason.VIEW, detail=outside)
    if _any_inside([*described, of_part]):
        return None
    # "CHEST LAT" rules out all images of a study; "CHEST PA" does not say that this image is the frontal one.
    if outside := _first_outside(_stated(_study_texts(header), described_view)):
        return NotAnalysed(reason=Reason.VIEW, detail=outside)
    return Note.VIEW_MISSING


def _orientation(question: _Question) -> _Answer:
    directions = values(question.header, "PatientOrientation")
    match stated_orientation(directions):
        case Orientation.TURNED:
            detail = f"PatientOrientation {'/'.join(directions)}"  # only letters of directions: never patient data
            return NotAnalysed(reason=Reason.TURNED, detail=detail)
        case Orientation.UNCLEAR:
            return NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail="PatientOrientation")
        case Orientation.MIRRORED:
            return Note.MIRRORED
        case _:
            return None


def _age(question: _Question) -> _Answer:
    """Decide by Patient's Age and by Patient's Birth Date on each date of the film; a child by either gets no score.

    Where two ages are further apart than a rounded birth date explains, one is wrong. If none says a child, that is a
    note. If one says a child and another an adult, nobody can tell which is right, and the image gets no score. There
    are two exceptions: an age that no patient can have, and an age of zero, which consoles send where they know none.
    Then the others decide. A title that says a child counts only where there is no age.
    """
    header, minimum = question.header, question.rules.minimum_age
    unreadable = None
    try:
        stated = stated_age(header)
    except UnreadableAttributeError as error:
        stated, unreadable = None, error
    if stated and is_plausible(stated.years):
        return _age_by_both(stated, ages_by_birth_date(header, stated), minimum)
    by_birth = ages_by_birth_date(header)
    born = [*filter(is_plausible, by_birth)]
    is_child = is_childs_age(description(header, "PatientAge"))
    if minimum and is_child:
        return (
            _contradictory("PatientAge, PatientBirthDate") if max(born, default=0) >= minimum else _child("PatientAge")
        )
    if not born and minimum and (title := _title_of_a_child(header)):
        return _child(title)
    if not born and not is_child and unreadable:
        raise unreadable
    return _age_by_birth(by_birth, minimum, is_stated=stated is not None)


def _age_by_both(stated: StatedAge, by_birth: Sequence[float], minimum: int) -> _Answer:
    born = [*filter(is_plausible, by_birth)]
    is_default = stated.years == 0 and min(born, default=0) >= minimum
    if not is_default:
        if _is_contradiction([stated.years, *born], minimum):
            return _contradictory("PatientAge, PatientBirthDate")
        if min([stated.years, *born[:1]]) < minimum:  # of the dates the most direct one
            return _child("PatientAge" if stated.years < minimum else "PatientBirthDate")
    is_confirmed = any(map(stated.agrees_with, born))
    return Note.AGE_CONTRADICTORY if by_birth and not is_confirmed else None


def _age_by_birth(by_birth: Sequence[float], minimum: int, *, is_stated: bool) -> _Answer:
    """Decide by the birth date alone, which gives an age on each date of the film."""
    plausible = [*filter(is_plausible, by_birth)]
    if not plausible:
        return Note.AGE_IMPLAUSIBLE if by_birth or is_stated else Note.AGE_MISSING
    if _is_contradiction(plausible, minimum):  # a date is wrong, or the picture was made again long after the film
        return _contradictory("PatientBirthDate")
    if plausible[0] < minimum:
        return _child("PatientBirthDate")
    return Note.AGE_CONTRADICTORY if is_stated else None


def _is_contradiction(ages: Sequence[float], minimum: int) -> bool:
    """Return whether one age is a child's, another is an adult's, and not both can be right."""
    return min(ages) < minimum <= max(ages) and max(ages) - min(ages) > MOST_APART


def _contradictory(detail: str) -> NotAnalysed:
    return NotAnalysed(reason=Reason.AGE_CONTRADICTORY, detail=detail)


def _child(detail: str) -> NotAnalysed:
    return NotAnalysed(reason=Reason.PATIENT_AGE, detail=detail)


def _title_of_a_child(header: Dataset) -> str | None:
    """Return the attribute whose text says that the patient is a child; None if there is none."""
    texts = [("BodyPartExamined", description(header, "BodyPartExamined"))]
    texts += [*_series_texts(header), *_study_texts(header)]
    return next((keyword for keyword, text in texts if names_a_child(text)), None)


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
    _made_picture,
    _body_part,
    _view,
    _orientation,
    _age,
    _colour,
    _size,
    _burned_in,
)


_Text = tuple[str, str]  # keyword, value


def _coded_parts(header: Dataset) -> list[tuple[str, Statement]]:
    stated, view = code(header, "BodyPartExamined"), code(header, "ViewPosition")
    is_another = described_body_part(view) is Statement.OUTSIDE  # "AP KNEE"; a view of the chest proves no body part
    return [
        (named("BodyPartExamined", stated), coded_body_part(stated)),
        (named("ViewPosition", view), Statement.OUTSIDE if is_another else Statement.SILENT),
        *_coded_items(header, "AnatomicRegionSequence", _CHEST_CODES, coded_body_part),
    ]


def _coded_views(header: Dataset) -> list[tuple[str, Statement]]:
    stated = code(header, "ViewPosition")
    is_lateral = stated_orientation(values(header, "PatientOrientation")) is Orientation.LATERAL
    # PS3.3 C.7.6.1.1.2: the values from the third on say what the image is
    other_types = [one for one in values(header, "ImageType")[2:] if described_view(one) is Statement.OUTSIDE]
    modifiers = [
        ("ViewModifierCodeSequence", meaning)
        for item in items(header, "ViewCodeSequence")
        for meaning in meanings(item, "ViewModifierCodeSequence")
    ]
    return [
        (named("ViewPosition", stated), coded_view(stated)),
        *_coded_items(header, "ViewCodeSequence", _FRONTAL_CODES, coded_view),
        *_stated(modifiers, described_view),
        *((named("ImageType", value), Statement.OUTSIDE) for value in other_types),
        ("PatientOrientation", Statement.OUTSIDE if is_lateral else Statement.SILENT),
    ]


def _coded_items(
    header: Dataset, keyword: str, inside: frozenset[str], say: Callable[[str], Statement]
) -> list[tuple[str, Statement]]:
    statements = []
    for item in items(header, keyword):
        known = code(item, "CodeValue") in inside
        statements.append((keyword, Statement.INSIDE if known else say(code(item, "CodeMeaning"))))
    return statements


def _series_texts(header: Dataset) -> list[_Text]:
    return _texts(header, _SERIES_TEXTS, _SERIES_CODES)


def _study_texts(header: Dataset) -> list[_Text]:
    """Return the texts that speak of a study or a procedure step: they cover several images."""
    requests = readable_items(header, "RequestAttributesSequence")
    return [
        *_texts(header, _STUDY_TEXTS, _STUDY_CODES),
        *(text for request in requests for text in _texts(request, _REQUEST_TEXTS, _REQUEST_CODES)),
    ]


def _texts(header: Dataset, keywords: Iterable[str], sequences: Iterable[str]) -> list[_Text]:
    return [
        *((keyword, description(header, keyword)) for keyword in keywords),
        *((keyword, meaning) for keyword in sequences for meaning in meanings(header, keyword)),
    ]


def _stated(texts: Iterable[_Text], say: Callable[[str], Statement]) -> list[tuple[str, Statement]]:
    return [(keyword, say(text)) for keyword, text in texts]


def _first_outside(statements: Iterable[tuple[str, Statement]]) -> str | None:
    return next((detail for detail, statement in statements if statement is Statement.OUTSIDE), None)


def _any_inside(statements: Iterable[tuple[str, Statement]]) -> bool:
    return any(statement is Statement.INSIDE for _, statement in statements)
