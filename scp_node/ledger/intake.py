"""Enters received files into the ledger."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, select, text, update

from scp_node.domain import ReceivedInstance, RejectedInstance
from scp_node.ledger import queue
from scp_node.ledger.analyses import last_version, made_here, open_report
from scp_node.ledger.database.schema import Use, instance, study_patient
from scp_node.ledger.queue_kinds import ANALYSE, REPORT
from scp_node.ledger.selecting import chunks
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.trail.provenance import status_text
from scp_node.ledger.transactions import Policy, Transactions, insert_row
from scp_node.ledger.unregistrable import UnregistrableFile, record_unregistrable

_REGISTER_LOCK: Final = 0x5C9_0E6  # any constant: one registrar at a time decides what is new
SEVERAL_PATIENTS: Final = "several-patients"  # event: a film names another patient than the rest of its study
# the ids are returned in the order of the rows
_ENTER: Final = instance.insert().returning(instance.c.id, sort_by_parameter_order=True)
_ORIGINALS: Final = select(
    instance.c.sop_instance_uid, instance.c.sha256, instance.c.spool_path, instance.c.purging_at
).where(instance.c.sop_instance_uid.in_(bindparam("uids", expanding=True)))
_PATIENTS: Final = select(study_patient.c.study_uid, study_patient.c.patient_key, study_patient.c.id).where(
    study_patient.c.study_uid.in_(bindparam("studies", expanding=True))
)
_COLUMNS: Final = [name for name in ReceivedInstance.__slots__ if name in instance.c]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """One file whose bytes the ledger has already: remove it, unless the original is lost."""

    spool_path: str
    original_path: str  # the file that the row names
    original_kept: bool  # False: retention has removed it or is about to


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """The results for a batch of files."""

    new: int
    duplicates: tuple[Duplicate, ...]
    conflicts: tuple[str, ...]  # SOP Instance UIDs that came again with other bytes
    several_patients: tuple[str, ...]  # Study Instance UIDs that now name one patient more


class Intake:
    """Enters the spool's files; to enter a file twice changes nothing."""

    def __init__(self, transactions: Transactions, policy: Policy) -> None:
        """Work on `transactions` by `policy`."""
        self._transactions = transactions
        self._policy = policy

    def register(self, received: Sequence[ReceivedInstance], *, gone: Collection[str] = ()) -> Registration:
        """Enter received files, and queue each new one for analysis.

        A path in `gone` names a file that was removed. If it is a duplicate, an earlier call entered and told it.
        """
        new, duplicates, conflicts, several = 0, list[Duplicate](), list[str](), list[str]()
        with self._transactions.writing() as (connection, now):
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _REGISTER_LOCK})
            known, patients = _known(connection, received), _patients(connection, received)
            batch = _Batch(connection, self._policy, now)
            for item in received:
                seen = known.setdefault(item.sop_instance_uid, {})
                if item.sha256 in seen:
                    original = seen[item.sha256]
                    if original.spool_path != item.spool_path and item.spool_path not in gone:
                        duplicates.append(_duplicate(item, original))
                        _record(connection, now, "duplicate", item)
                    continue
                if seen:
                    conflicts.append(item.sop_instance_uid)
                in_study = patients.setdefault(item.study_uid, {})
                if batch.add(item, in_study, conflict=bool(seen)):
                    several.append(item.study_uid)
                seen[item.sha256] = _Original(item.spool_path, kept=True)
                new += 1
            batch.write()
        return Registration(
            new=new,
            duplicates=tuple(duplicates),
            conflicts=tuple(conflicts),
            several_patients=tuple(several),
        )

    def adopt(self, duplicate: Duplicate) -> bool:
        """Let the row name this file instead of the lost original.

        Return False if the original is being purged, or the row names another file by now.
        """
        lost = (instance.c.spool_path == duplicate.original_path) & instance.c.purging_at.is_(None)
        columns = (instance.c.study_uid, instance.c.sop_instance_uid, instance.c.sha256)
        adopt = update(instance).where(lost).values(spool_path=duplicate.spool_path).returning(*columns)
        with self._transactions.writing() as (connection, now):
            row = connection.execute(adopt).first()
            if row is not None:
                detail = {"input_sha256": [row.sha256], "lost": duplicate.original_path, "now": duplicate.spool_path}
                record_event(
                    connection,
                    now,
                    "original-replaced",
                    study_uid=row.study_uid,
                    sop_instance_uid=row.sop_instance_uid,
                    detail=detail,
                )
        return row is not None

    def unregistered(self, spool_paths: Sequence[str]) -> list[str]:
        """Return those of `spool_paths` that no row names, in the same order."""
        known: set[str] = set()
        with self._transactions.reading() as (connection, _now):
            for chunk in chunks(spool_paths):
                known.update(connection.scalars(select(instance.c.spool_path).where(instance.c.spool_path.in_(chunk))))
        return [path for path in spool_paths if path not in known]

    def record_rejected(self, refused: RejectedInstance) -> None:
        """Note a C-STORE that was refused, or how many were."""
        status = status_text(refused.status)
        detail = {"calling_ae": refused.calling_ae, "peer": refused.peer, "status": status, "reason": refused.reason}
        number = {"unsaid": refused.unsaid} if refused.unsaid else {}
        uid = refused.sop_instance_uid
        with self._transactions.writing() as (connection, _now):
            record_event(connection, refused.at, "rejected", sop_instance_uid=uid, detail={**detail, **number})

    def record_unregistrable(self, file: UnregistrableFile) -> bool:
        """Note a file that cannot get a row; return False if it was noted before."""
        with self._transactions.writing() as (connection, now):
            return record_unregistrable(connection, file, now)


class _Batch:
    """The new instances of one transaction: their rows, and those of their work, are written together."""

    def __init__(self, connection: Connection, policy: Policy, now: datetime) -> None:
        self._connection = connection
        self._policy = policy
        self._now = now
        self._rows: list[dict[str, object]] = []  # of instances that are not written yet
        self._priorities: list[int] = []  # of the same
        self._new_patients: set[int] = set()  # entered by this transaction: they have no report yet, and none waits

    def add(self, item: ReceivedInstance, patients: dict[str, int], *, conflict: bool) -> bool:
        """Take an instance; return whether its study names one patient more than before."""
        patient_id, is_another = self._study_patient(item, patients)
        values = {name: _storable(getattr(item, name)) for name in _COLUMNS}
        use = Use.CONFLICT if conflict else Use.READ
        self._priorities.append(item.priority)
        self._rows.append(
            {**values, "study_patient_id": patient_id, "conflict": conflict, "use": use, "registered_at": self._now}
        )
        _record(self._connection, self._now, "conflict" if conflict else "received", item)
        if patient_id not in self._new_patients:
            before = last_version(self._connection, patient_id)
            due = self._policy.report_due(item.priority, item.received_at, self._now, before)
            queue.reschedule_waiting(self._connection, queue=REPORT, dedup=str(patient_id), due=due, at=self._now)
        return is_another

    def write(self) -> None:
        """Write what was added since the last call, and queue it for analysis."""
        if not self._rows:
            return
        ids = self._connection.scalars(_ENTER, self._rows).all()
        queue.enqueue(
            self._connection,
            zip(ids, self._priorities, strict=True),
            queue=ANALYSE,
            max_attempts=self._policy.most_tries(ANALYSE),
            at=self._now,
        )
        self._rows.clear()
        self._priorities.clear()

    def _study_patient(self, item: ReceivedInstance, known: dict[str, int]) -> tuple[int, bool]:
        """Return the row of the patient in the study, and whether it is new beside those of `known` patients.

        Then the reports of the others have to say that the study names several. An object that this node made and a
        PACS routed back names nobody: the PACS may have given the patient another ID since.
        """
        if item.patient_key in known:
            return known[item.patient_key], False
        if known and made_here(self._connection, [item.sop_instance_uid]):
            return min(known.values()), False
        row_id = insert_row(
            self._connection,
            study_patient,
            study_uid=item.study_uid,
            patient_key=item.patient_key,
            patient_id=_storable(item.patient_id),
            issuer=_storable(item.issuer),
        )
        self._new_patients.add(row_id)
        others = sorted(known.values())
        if others:
            self.write()  # the images of the others decide when their reports are due
            _record(self._connection, self._now, SEVERAL_PATIENTS, item)
            for other in others:
                open_report(self._connection, self._policy, other, self._now)
                self._new_patients.discard(other)  # its report waits from now on
        known[item.patient_key] = row_id
        return row_id, bool(others)


def _storable(value: object) -> object:
    """Return text without NUL, which PostgreSQL cannot keep; the header keeps the original bytes."""
    return value.replace("\0", "") if isinstance(value, str) else value


class _Original(NamedTuple):
    spool_path: str
    kept: bool


def _duplicate(item: ReceivedInstance, original: _Original) -> Duplicate:
    return Duplicate(spool_path=item.spool_path, original_path=original.spool_path, original_kept=original.kept)


def _known(connection: Connection, received: Sequence[ReceivedInstance]) -> dict[str, dict[str, _Original]]:
    """Return the originals of each SOP Instance UID that the ledger has, by the digest of their dataset."""
    uids = {item.sop_instance_uid for item in received}
    known: dict[str, dict[str, _Original]] = {}
    for row in connection.execute(_ORIGINALS, {"uids": sorted(uids)}):
        original = _Original(row.spool_path, kept=row.purging_at is None)
        known.setdefault(row.sop_instance_uid, {})[row.sha256] = original
    return known


def _patients(connection: Connection, received: Sequence[ReceivedInstance]) -> dict[str, dict[str, int]]:
    """Return the rows of the patients that each study names so far, by their key."""
    studies = {item.study_uid for item in received}
    patients: dict[str, dict[str, int]] = {}
    for row in connection.execute(_PATIENTS, {"studies": sorted(studies)}):
        patients.setdefault(row.study_uid, {})[row.patient_key] = row.id
    return patients


def _record(connection: Connection, now: datetime, kind: str, item: ReceivedInstance) -> None:
    detail = {"input_sha256": [item.sha256], "calling_ae": item.calling_ae, "peer": item.peer}
    record_event(connection, now, kind, study_uid=item.study_uid, sop_instance_uid=item.sop_instance_uid, detail=detail)
