"""What the page of a study shows, made from what the ledger holds of it: values in, values out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote

from scp_node.dicom.encoding import DamagedError
from scp_node.domain import Finding, ModelIdentity, NotAnalysed, Note, Reason
from scp_node.ledger.audit_rows import AuditRow, DeliveryState, ImageState
from scp_node.ledger.study_rows import Arrivals, StudyEvent, StudyImage, StudyPage, StudyPatient, StudyReport
from scp_node.ledger.worklist_rows import WorklistRow
from scp_node.report.content.wording import statement
from scp_node.report.text import as_text, conclusion_of
from scp_node.web.words import VERDICT_CLASSES, VERDICTS

_REPORT: Final = "report"
_AROUND: Final = 1  # lines that are shown beside a changed one
_UNREADABLE: Final = "The stored file cannot be read as a report of this node."
_WAITING: Final[Mapping[ImageState, str]] = {
    ImageState.RECEIVED: "It waits for its analysis.",
    ImageState.ANALYSING: "It is being analysed now.",
    ImageState.DUPLICATE: "It is the same image as another of this study, in another encoding: that one is analysed.",
}
_SENT: Final[Mapping[DeliveryState, str]] = {
    DeliveryState.WAITING: "muted",
    DeliveryState.UNDELIVERABLE: "error",
    DeliveryState.DELIVERED: "negative",
    DeliveryState.COMMITTED: "negative",
    DeliveryState.FOUND: "negative",
    DeliveryState.DEAD: "error",
    DeliveryState.DISCARDED: "muted",
}
_ARRIVED: Final = frozenset({DeliveryState.DELIVERED, DeliveryState.COMMITTED, DeliveryState.FOUND})
_KEPT: Final = {DeliveryState.COMMITTED: "committed by", DeliveryState.FOUND: "found at"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """A word with a colour that only supports it."""

    word: str
    colour: str  # a class of the style sheet


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of an image's way."""

    name: str
    at: datetime
    after_previous: timedelta | None
    after_reception: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageView:
    """One image on the page."""

    image: StudyImage
    number: int  # in the study, from 1
    chip: Chip
    sentence: str
    remarks: tuple[str, ...]
    regions: str  # JSON, for the viewer
    steps: tuple[Step, ...]

    @property
    def regions_count(self) -> int:
        """Return the number of its regions."""
        return len(self.image.row.regions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of two versions side by side, or several that are the same in both and left out."""

    change: str  # "", "changed", "added" or "removed"
    before: str
    after: str
    left_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """One version of a report on the page."""

    report: StudyReport
    text: str
    lines: tuple[Line, ...]  # beside the version before, what changed and the lines around it; () without one

    @property
    def changes(self) -> int:
        """Return the number of lines that are not as before."""
        return sum(bool(line.change) for line in self.lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """A model that spoke of the images."""

    bundle: str
    digest: str
    threshold: float
    grey_zone: float
    calibration: str
    served: ModelIdentity | None  # None: this node serves another one now


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientView:
    """One patient of a study on the page."""

    patient: StudyPatient
    person: WorklistRow | None  # name, sex and age; None until the list of studies knows this one
    sentence: str
    said_in: str  # where the sentence is from
    accessions: tuple[str, ...]
    images: tuple[ImageView, ...]
    models: tuple[ModelView, ...]
    reports: tuple[ReportView, ...]
    viewer: str  # address of the study in the site's viewer; "" without one


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """One event on the page."""

    event: StudyEvent
    by: str  # the person, with their address
    facts: tuple[tuple[str, str], ...]


def patient_views(
    page: StudyPage, persons: Sequence[WorklistRow], model: ModelIdentity | None, viewer_url: str
) -> tuple[PatientView, ...]:
    """Return the patients of a study, with all that is shown of each."""
    known = {person.id: person for person in persons}
    views, number = [], 1
    for patient in page.patients:
        person = known.get(patient.id) if patient.id is not None else None
        views.append(_patient(page, patient, person, model, viewer_url, first=number))
        number += len(patient.images)
    return tuple(views)


def event_views(events: Sequence[StudyEvent]) -> tuple[EventView, ...]:
    """Return the events with what is in them as text."""
    return tuple(_event(event) for event in events)


def delivery_chip(state: DeliveryState) -> Chip:
    """Return a delivery's state."""
    return Chip(word=state.value, colour=_SENT[state])


def viewer_address(template: str, *, study_uid: str, accession: str, patient_id: str) -> str:
    """Return the address of a study in the site's viewer; values are percent-encoded (RFC 3986, section 2.1)."""
    values = {"study_uid": study_uid, "accession": accession, "patient_id": patient_id}
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", quote(value, safe=""))
    return template


def _patient(
    page: StudyPage,
    patient: StudyPatient,
    person: WorklistRow | None,
    model: ModelIdentity | None,
    viewer_url: str,
    *,
    first: int,
) -> PatientView:
    arrivals = page.first_deliveries
    images = tuple(_image(image, number, arrivals) for number, image in enumerate(patient.images, start=first))
    sentence, said_in = _sentence(patient, images)
    accessions = tuple(dict.fromkeys(image.row.accession for image in patient.images if image.row.accession))
    accession = accessions[0] if accessions else ""
    return PatientView(
        patient=patient,
        person=person,
        sentence=sentence,
        said_in=said_in,
        accessions=accessions,
        images=images,
        models=_models(patient.images, model),
        reports=_reports(patient.reports),
        viewer=viewer_address(viewer_url, study_uid=page.study_uid, accession=accession, patient_id=patient.patient_id),
    )


def _sentence(patient: StudyPatient, images: Sequence[ImageView]) -> tuple[str, str]:
    """Return the sentence of the newest report, or else of the images, and where it is from."""
    if patient.reports:
        newest = patient.reports[0]
        try:
            said = conclusion_of(newest.file)
        except DamagedError:
            said = ""
        if said:
            return said, f"From report version {newest.version}."
    said = " ".join(dict.fromkeys(image.sentence for image in images))
    return said, "From the results of the images." if patient.reports else "There is no report yet."


def _image(image: StudyImage, number: int, arrivals: Arrivals) -> ImageView:
    row = image.row
    chip, sentence = _said(row)
    return ImageView(
        image=image,
        number=number,
        chip=chip,
        sentence=sentence,
        remarks=_remarks(row),
        regions=json.dumps([dict(region) for region in row.regions]),
        steps=_steps(row, arrivals),
    )


def _said(row: AuditRow) -> tuple[Chip, str]:
    if row.verdict is not None and row.probability is not None and row.threshold is not None:
        colour, word = VERDICT_CLASSES[row.verdict], VERDICTS[row.verdict].lower()
        finding = Finding(  # of which only the sentence is made: the logit is not in it
            probability=row.probability, logit=0.0, threshold=row.threshold, grey_zone=row.grey_zone or 0.0
        )
        return Chip(word=word, colour=colour), statement(finding)
    word = row.state.value.replace("-", " ")
    if row.reason in set(Reason):
        outcome = NotAnalysed(reason=Reason(row.reason), detail=row.detail or "")
        is_muted = row.state in {ImageState.NOT_ANALYSED, ImageState.SET_ASIDE}
        return Chip(word=word, colour="muted" if is_muted else "error"), f"NOT ANALYSED: {outcome.sentence}."
    return Chip(word=word, colour="muted"), _WAITING.get(row.state, "")


def _remarks(row: AuditRow) -> tuple[str, ...]:
    notes = [Note(note).sentence for note in row.notes if note in set(Note)]
    if row.interrupted:
        notes.append("The transfer of the study broke off: images may be missing.")
    return tuple(notes)


def _steps(row: AuditRow, arrivals: Arrivals) -> tuple[Step, ...]:
    """Return the way of an image, from its reception to the last promise of a destination.

    A report that was sent again has arrived twice.
    """
    known: list[tuple[str, datetime | None]] = [
        ("received", row.received_at),
        ("registered", row.registered_at),
        ("analysis began", row.analysis_started_at),
        ("analysed", row.analysed_at),
        (f"reported, version {row.report_version}", row.reported_at),
    ]
    reports = [sent for sent in row.deliveries if sent.kind == _REPORT]
    for sent in reports:
        last = sent.at if sent.state in _ARRIVED else None
        first = arrivals.get((sent.sop_instance_uid, sent.destination), last)
        known += [(f"delivered to {sent.destination}", first)]
        known += [(f"delivered to {sent.destination} again", last)] if last != first else []
    known += [(f"{_KEPT[sent.state]} {sent.destination}", sent.committed_at) for sent in reports if sent.state in _KEPT]
    steps: list[Step] = []
    for name, at in known:
        if at is not None:
            steps.append(
                Step(
                    name=name,
                    at=at,
                    after_previous=at - steps[-1].at if steps else None,
                    after_reception=at - steps[0].at if steps else None,
                )
            )
    return tuple(steps)


def _models(images: Sequence[StudyImage], served: ModelIdentity | None) -> tuple[ModelView, ...]:
    """Return the models that gave the newest results, in order of appearance."""
    found: dict[tuple[str, float, float], ModelView] = {}
    for row in (image.row for image in images):
        if row.bundle is None or row.bundle_digest is None:
            continue
        threshold = row.threshold if row.threshold is not None else (served.threshold if served else 0.0)
        key = (row.bundle_digest, threshold, row.grey_zone or 0.0)
        found.setdefault(
            key,
            ModelView(
                bundle=row.bundle,
                digest=row.bundle_digest,
                threshold=threshold,
                grey_zone=row.grey_zone or 0.0,
                calibration=row.calibration or "",
                served=served if served and served.digest == row.bundle_digest else None,
            ),
        )
    return tuple(found.values())


def _reports(reports: Sequence[StudyReport]) -> tuple[ReportView, ...]:
    texts = {report.version: _text(report.file) for report in reports}
    views = []
    for report in reports:
        before = texts.get(report.supersedes) if report.supersedes is not None else None
        lines = shortened(beside(before, texts[report.version])) if before is not None else ()
        views.append(ReportView(report=report, text=texts[report.version], lines=lines))
    return tuple(views)


def _text(file: bytes) -> str:
    try:
        return as_text(file)
    except DamagedError:
        return _UNREADABLE


def beside(before: str, after: str) -> tuple[Line, ...]:
    """Return two texts line by line beside each other, with what changed in words."""
    old, new = before.splitlines(), after.splitlines()
    lines: list[Line] = []
    for word, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if word == "equal":
            lines += [Line(change="", before=line, after=line) for line in old[i1:i2]]
            continue
        for place in range(max(i2 - i1, j2 - j1)):
            left = old[i1 + place] if i1 + place < i2 else None
            right = new[j1 + place] if j1 + place < j2 else None
            change = "added" if left is None else "removed" if right is None else "changed"
            lines.append(Line(change=change, before=left or "", after=right or ""))
    return tuple(lines)


def shortened(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Return the lines that changed with `_AROUND` lines on either side, and the number of those left out between."""
    near = {place + step for place, line in enumerate(lines) if line.change for step in range(-_AROUND, _AROUND + 1)}
    shown: list[Line] = []
    left_out = 0
    for place, line in enumerate(lines):
        if place in near:
            shown += [Line(change="", before="", after="", left_out=left_out)] if left_out else []
            shown.append(line)
            left_out = 0
        else:
            left_out += 1
    return (*shown, *([Line(change="", before="", after="", left_out=left_out)] if left_out else []))


def _event(event: StudyEvent) -> EventView:
    name, address = event.detail.get("by"), event.detail.get("address")
    by = f"{name} ({address})" if name and address else str(name or "")
    facts = tuple(
        (key.replace("_", " "), _plain(value))
        for key, value in event.detail.items()
        if key not in {"by", "address"} and value not in (None, "", [], {})
    )
    return EventView(event=event, by=by, facts=facts)


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False)
