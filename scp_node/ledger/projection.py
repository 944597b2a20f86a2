"""Makes the rows of the list of studies, and what the daily counts know of each film, from the ledger's own tables.

Whatever changes one of these rows has an event about its study in the same transaction, so that the projector learns of
it: nothing here may depend on what changes without one, such as who holds a lease.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, func, select

from scp_node.domain import Completion, FilmDescription, Reason, Verdict
from scp_node.ledger.audit_rows import DeliveryState
from scp_node.ledger.daily import INPUTS, FilmFacts, FilmOutcome
from scp_node.ledger.database.schema import (
    WITHOUT_HEADER,
    Use,
    companion,
    delivery,
    instance,
    report,
    report_result,
    result,
    study,
    study_patient,
    work,
)
from scp_node.ledger.feedback import feedback_of
from scp_node.ledger.queue import WorkState
from scp_node.ledger.queue_kinds import REPORT, in_queue
from scp_node.ledger.search import search_text
from scp_node.ledger.selecting import chunks
from scp_node.ledger.snapshots import UNREAD
from scp_node.ledger.trail.provenance import first_deliveries
from scp_node.ledger.worklist_rows import StudyState, WorklistRow

Describe = Callable[[bytes, str], FilmDescription]
"""Returns what the header of an image says of its patient; the second argument is its transfer syntax."""

_FIRST_OF_CJK: Final = "\N{CJK RADICAL REPEAT}"  # some sites write such names into the alphabetic group
_LONGEST_VIEW: Final = 16  # characters; a CS has no more
_LONGEST_DETAIL: Final = 500
_HEADERS: Final = 200  # of one statement
_MOST_DESCRIPTIONS: Final = 4_096  # kept in memory: a study is looked at about ten times within a minute
_WORST_DELIVERY: Final = (
    DeliveryState.DEAD,
    DeliveryState.UNDELIVERABLE,
    DeliveryState.WAITING,
    DeliveryState.DISCARDED,
    DeliveryState.DELIVERED,
    DeliveryState.FOUND,
    DeliveryState.COMMITTED,
)
_STATES_OF_DELIVERIES: Final[Mapping[DeliveryState, StudyState]] = {
    DeliveryState.DEAD: StudyState.GIVEN_UP,
    DeliveryState.UNDELIVERABLE: StudyState.UNDELIVERABLE,
    DeliveryState.WAITING: StudyState.REPORTED,
    DeliveryState.DISCARDED: StudyState.DISCARDED,
}
_MOST_TELLING: Final = (Verdict.NOT_DETECTED, Verdict.UNDETERMINED, Verdict.PRESENT)
_OUTCOMES: Final[Mapping[str, FilmOutcome]] = {
    Completion.NOT_ATTEMPTED: FilmOutcome.NOT_ANALYSED,
    Completion.FAILED: FilmOutcome.FAILED,
}
_FAILURES: Final = frozenset(reason.value for reason in Reason if reason.completion is Completion.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected:
    """What the projections say of one patient's images of a study."""

    row: WorklistRow
    search: str
    films: tuple[FilmFacts, ...]


class Descriptions:
    """Describes images by their headers, and remembers those that it described last: a header never changes."""

    def __init__(self, describe: Describe) -> None:
        """Read headers with `describe`."""
        self._describe = describe
        self._known: dict[int, FilmDescription] = {}

    def of(self, connection: Connection, ids: Iterable[int]) -> dict[int, FilmDescription]:
        """Return the descriptions of these images."""
        wanted = list(ids)
        missing = [each for each in wanted if each not in self._known]
        columns = select(instance.c.id, instance.c.header, instance.c.transfer_syntax)
        found = {each: self._known[each] for each in wanted if each in self._known}
        for some in chunks(missing, _HEADERS):
            for row in connection.execute(columns.where(instance.c.id.in_(some))):
                found[row.id] = self._describe(row.header, row.transfer_syntax)
        if len(self._known) > _MOST_DESCRIPTIONS:
            self._known.clear()
        self._known.update(found)
        return found


def project(connection: Connection, ids: Sequence[int], descriptions: Descriptions) -> list[Projected]:
    """Return what the projections say of these rows of `study_patient`, in the one state that the transaction sees."""
    found = _Found(connection, ids)
    described = descriptions.of(connection, [image.id for image in found.images])
    feedback = feedback_of(connection, ids)
    return [
        _Patient(found, patient, described).projected(feedback.get(patient.id))
        for patient in found.patients
        if found.images_of[patient.id]
    ]


class _Found:
    """The rows of the ledger about some patients' images of a study each."""

    def __init__(self, connection: Connection, ids: Sequence[int]) -> None:
        self.patients = _rows(connection, select(study_patient).where(study_patient.c.id.in_(ids)))
        of_patients = instance.c.study_patient_id.in_(ids)
        self.images = _rows(connection, select(*WITHOUT_HEADER).where(of_patients).order_by(instance.c.id))
        self.images_of = _grouped(self.images, "study_patient_id")
        image_ids = select(instance.c.id).where(of_patients)
        newest = select(func.max(result.c.id)).where(result.c.instance_id.in_(image_ids)).group_by(result.c.instance_id)
        without_map = [column for column in result.c if column is not result.c.attention]
        results = _rows(connection, select(*without_map).where(result.c.id.in_(newest)))
        self.results = {row.instance_id: row for row in results}
        uids = select(instance.c.sop_instance_uid).where(of_patients)
        made = select(companion.c.sop_instance_uid).where(companion.c.sop_instance_uid.in_(uids))
        self.made_here = set(connection.scalars(made))
        interrupted = select(study.c.study_uid).where(
            study.c.study_uid.in_({patient.study_uid for patient in self.patients}), study.c.interrupted
        )
        self.interrupted = set(connection.scalars(interrupted))
        self._reports(connection, ids)

    def _reports(self, connection: Connection, ids: Sequence[int]) -> None:
        columns = (report.c.id, report.c.study_patient_id, report.c.version, report.c.at, report.c.sop_instance_uid)
        of_patients = select(*columns).where(report.c.study_patient_id.in_(ids)).order_by(report.c.version)
        reports = _rows(connection, of_patients)
        self.reports = {row.study_patient_id: row for row in reports}  # the newest of each
        self.report_uids = {row.id: row.sop_instance_uid for row in reports}
        self.first_deliveries = first_deliveries(connection, {patient.study_uid for patient in self.patients})
        report_ids = select(report.c.id).where(report.c.study_patient_id.in_(ids))
        wanted = (
            delivery.c.report_id,
            delivery.c.companion_id,
            delivery.c.destination,
            delivery.c.state,
            delivery.c.detail,
            delivery.c.created_at,
            delivery.c.delivered_at,
            delivery.c.committed_at,
        )
        deliveries = _rows(
            connection, select(*wanted).where(delivery.c.report_id.in_(report_ids)).order_by(delivery.c.id)
        )
        self.deliveries = _grouped(deliveries, "report_id")
        linked = select(report_result.c.report_id, result.c.instance_id).distinct()
        joined = linked.join(result, result.c.id == report_result.c.result_id)
        links = _rows(connection, joined.where(report_result.c.report_id.in_(report_ids)))
        self.reports_of: dict[int, set[int]] = defaultdict(set)  # of an image
        for row in links:
            self.reports_of[row.instance_id].add(row.report_id)
        closed = select(work.c.ref_id, work.c.state, work.c.error).where(
            in_queue(REPORT), work.c.ref_id.in_(ids), work.c.state.in_([WorkState.DEAD, WorkState.CANCELLED])
        )
        rows = _rows(connection, closed)
        self.unreported = {row.ref_id: row.error for row in rows if row.state == WorkState.DEAD}
        self.cancelled = {row.ref_id for row in rows if row.state == WorkState.CANCELLED}


class _Patient:
    """One patient's images of a study."""

    def __init__(self, found: _Found, patient: Any, described: Mapping[int, FilmDescription]) -> None:
        self._found = found
        self._patient = patient
        self._described = described
        self._all = found.images_of[patient.id]
        kept = [image for image in self._all if image.use != Use.DUPLICATE]
        self._films = [image for image in kept if not self._is_own(image)]
        self._read = [image for image in self._films if image.use == Use.READ]
        self._report: Any = found.reports.get(patient.id)
        self._sent = found.deliveries[self._report.id] if self._report else []

    def projected(self, feedback: str | None) -> Projected:
        patient = self._patient
        shown = self._films or self._all
        first = self._described[(self._read or shown)[0].id]
        telling, missing = self._most_telling(), self._least_analysed()
        finding = None if telling is None else self._found.results[telling.id]
        accession = next((image.accession for image in shown if image.accession), "")
        reports = [each for each in self._sent if each.companion_id is None]
        taken = [each.delivered_at for each in reports]
        kept = [each.committed_at for each in reports]
        state = self._state()
        row = WorklistRow(
            id=patient.id,
            study_uid=patient.study_uid,
            patient_key=patient.patient_key,
            patient_id=patient.patient_id,
            patient_name=readable_name(first.names),
            accession=accession,
            sex=first.sex,
            age=first.age,
            views=", ".join(dict.fromkeys(view for image in self._films if (view := self._view(image)))),
            calling_ae=max(shown, key=_age).calling_ae,
            images=len(self._films),
            interrupted=patient.study_uid in self._found.interrupted,
            newest_at=max(image.received_at for image in shown),
            received_at=min(image.received_at for image in shown),
            state=state,
            reason=missing,
            detail=self._detail(state),
            verdict=None if finding is None else Verdict(finding.verdict),
            probability=None if finding is None else finding.probability,
            threshold=None if finding is None else finding.threshold,
            grey_zone=None if finding is None else finding.grey_zone,
            bundle=self._result_value("bundle", finding),
            bundle_digest=self._result_value("bundle_digest", finding),
            report_version=self._report.version if self._report else None,
            delivery_state=self._delivery_state(),
            waiting_since=self._waiting_since(state),
            reported_at=self._report.at if self._report else None,
            delivered_at=max(taken) if taken and None not in taken else None,
            committed_at=max(kept) if kept and None not in kept else None,
            feedback=feedback,
        )
        search = search_text((*first.names, patient.patient_id, *dict.fromkeys(i.accession for i in shown)))
        return Projected(row=row, search=search, films=tuple(map(self._facts, self._films)))

    def _is_own(self, image: Any) -> bool:
        """Return whether this node made the picture, and a PACS routed it back."""
        found = self._found.results.get(image.id)
        return image.sop_instance_uid in self._found.made_here or (
            found is not None and found.reason == Reason.OWN_OBJECT
        )

    def _view(self, image: Any) -> str:
        return self._described[image.id].view[:_LONGEST_VIEW]

    def _findings(self) -> list[tuple[Any, Any]]:
        """Return the films with a verdict, each with its newest result."""
        pairs = [(image, self._found.results.get(image.id)) for image in self._read]
        return [(image, found) for image, found in pairs if found is not None and found.verdict is not None]

    def _most_telling(self) -> Any:
        """Return the film that says most: of the most serious verdict the most probable one, and the first of these."""
        findings = self._findings()
        if not findings:
            return None
        ranked = max(
            findings, key=lambda pair: (_MOST_TELLING.index(Verdict(pair[1].verdict)), pair[1].probability, -pair[0].id)
        )
        return ranked[0]

    def _least_analysed(self) -> str | None:
        """Return why a film has no verdict: the reason of a conflict, else of a failure, else of the first film."""
        reasons: list[str] = [UNREAD[Use(image.use)].value for image in self._films if image.use in UNREAD]
        for image in self._read:
            found = self._found.results.get(image.id)
            if found is not None and found.reason:
                reasons.append(found.reason)
        ranked = sorted(reasons, key=lambda each: (each != Reason.CONFLICTING_INSTANCE, each not in _FAILURES))
        own = None if self._films else Reason.OWN_OBJECT.value
        return next(iter(ranked), own)

    def _result_value(self, name: str, finding: Any) -> str | None:
        """Return a value of the result that is shown, or of the first one where there is no finding."""
        found = finding or next((self._found.results.get(image.id) for image in self._read), None)
        value: str | None = None if found is None else getattr(found, name)
        return value

    def _delivery_state(self) -> DeliveryState | None:
        states = {DeliveryState(each.state) for each in self._sent}
        return next((state for state in _WORST_DELIVERY if state in states), None)

    def _state(self) -> StudyState:
        if any(image.use == Use.CONFLICT for image in self._films):
            return StudyState.CONFLICT
        worst = self._delivery_state()
        of_deliveries = _STATES_OF_DELIVERIES.get(worst) if worst else None
        if self._patient.id in self._found.unreported:
            return StudyState.GIVEN_UP
        if of_deliveries in {StudyState.GIVEN_UP, StudyState.UNDELIVERABLE}:
            return of_deliveries
        return self._before_report() or of_deliveries or self._ended()

    def _before_report(self) -> StudyState | None:
        """Return the state of images that are not in a report yet; None where they are, or never will be."""
        if any(image.id not in self._found.results for image in self._read):
            return StudyState.RECEIVED
        if not self._films or not self._waits_for_report():
            return None
        return StudyState.DISCARDED if self._patient.id in self._found.cancelled else StudyState.ANALYSED

    def _ended(self) -> StudyState:
        """Return the state of images whose report every destination has."""
        if any(self._facts(image).outcome is FilmOutcome.FAILED for image in self._read):
            return StudyState.FAILED
        return StudyState.DELIVERED if self._findings() else StudyState.NOT_ANALYSED

    def _waits_for_report(self) -> bool:
        """Return whether there is no report, or one that a read film is not in."""
        if self._report is None:
            return True
        return any(self._report.id not in self._found.reports_of.get(image.id, ()) for image in self._read)

    def _waiting_since(self, state: StudyState) -> datetime | None:
        waiting: list[datetime] = []
        if state is StudyState.RECEIVED:
            waiting = [image.received_at for image in self._read if image.id not in self._found.results]
        elif state is StudyState.ANALYSED:
            waiting = [max(self._found.results[image.id].at for image in self._read)] if self._read else []
        elif state is StudyState.REPORTED:
            waiting = [each.created_at for each in self._sent if each.state == DeliveryState.WAITING]
        return min(waiting, default=None)

    def _detail(self, state: StudyState) -> str:
        """Return the words of whoever gave up or is waited for."""
        detail = ""
        if state is StudyState.GIVEN_UP and (error := self._found.unreported.get(self._patient.id)):
            detail = error
        elif state in {StudyState.GIVEN_UP, StudyState.REPORTED}:
            worst = self._delivery_state()
            at_fault = [each for each in self._sent if each.state == worst]
            detail = "; ".join(dict.fromkeys(": ".join(filter(None, (e.destination, e.detail))) for e in at_fault))
        return detail[:_LONGEST_DETAIL]

    def _facts(self, image: Any) -> FilmFacts:
        found = self._found.results.get(image.id) if image.use == Use.READ else None
        if image.use != Use.READ:
            outcome, reason = FilmOutcome.UNREAD, UNREAD[Use(image.use)].value
        elif found is None:
            outcome, reason = FilmOutcome.WAITING, ""
        elif found.verdict is not None:
            outcome, reason = FilmOutcome(found.verdict), ""
        else:
            outcome, reason = _OUTCOMES[found.outcome], found.reason
        stats = found.input_stats if found is not None else {}
        return FilmFacts(
            id=image.id,
            study_patient_id=image.study_patient_id,
            day=image.received_at.astimezone(UTC).date(),
            calling_ae=image.calling_ae,
            view=self._view(image),
            bundle="" if found is None else found.bundle,
            outcome=outcome,
            reason=reason,
            probability=None if found is None else found.probability,
            inputs={name: stats[name] for name in INPUTS if name in stats},
            seconds=self._seconds(image),
        )

    def _seconds(self, image: Any) -> float | None:
        """Return how long it took until a destination had the first report of a film; sent again, it counts no more."""
        reports = {self._found.report_uids[each] for each in self._found.reports_of.get(image.id, ())}
        taken = [at for (uid, _), at in self._found.first_deliveries.items() if uid in reports]
        return (min(taken) - image.received_at).total_seconds() if taken else None


def readable_name(names: Sequence[str]) -> str:
    """Return a name as people read it, from its groups: "Yamada, Tarou (山田 太郎)" (PS3.5 Section 6.2.1).

    The phonetic group is left out where there is another one.
    """
    alphabetic, ideographic, phonetic = (*names, "", "", "")[:3]
    first = _components(alphabetic, " " if any(each >= _FIRST_OF_CJK for each in alphabetic) else ", ")
    second = _components(ideographic, " ")
    if first and second:
        return f"{first} ({second})"
    return first or second or _components(phonetic, " ")


def _components(group: str, separator: str) -> str:
    """Return family name, given name and middle name; then prefix and suffix, if there are any."""
    family, given, middle, prefix, suffix = ([" ".join(part.split()) for part in group.split("^")] + 5 * [""])[:5]
    names = " ".join(filter(None, (prefix, given, middle)))
    return separator.join(filter(None, (family, names, suffix)))


def _age(image: Any) -> tuple[datetime, int]:
    return image.received_at, image.id


def _grouped(rows: Sequence[Any], name: str) -> dict[int, list[Any]]:
    groups: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        groups[getattr(row, name)].append(row)
    return groups


def _rows(connection: Connection, statement: Select[Any]) -> Sequence[Row[Any]]:
    return connection.execute(statement).all()
