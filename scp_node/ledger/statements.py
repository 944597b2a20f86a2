"""What a report says of a patient's study as a whole: the statement of its most telling film."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Select, func, select

from scp_node.domain import Verdict
from scp_node.ledger.database.schema import instance, report, report_result, result, study_patient
from scp_node.ledger.feedback_rows import Statement, Subject
from scp_node.ledger.selecting import chunks

_TELLING: Final = (Verdict.NOT_DETECTED, Verdict.UNDETERMINED, Verdict.PRESENT)


def subjects_of(connection: Connection, chosen: Select[tuple[int]]) -> list[Subject]:
    """Return the patients' studies whose ids a query gives, in the order of their ids."""
    columns = (study_patient.c.id, study_patient.c.study_uid, study_patient.c.patient_id, study_patient.c.issuer)
    rows = connection.execute(select(*columns).where(study_patient.c.id.in_(chosen)).order_by(study_patient.c.id)).all()
    ids = [row.id for row in rows]
    said, accessions = newest_statements(connection, ids), _accessions(connection, ids)
    return [
        Subject(
            id=row.id,
            study_uid=row.study_uid,
            patient_id=row.patient_id,
            issuer=row.issuer,
            accession=accessions.get(row.id, ""),
            statement=said.get(row.id),
        )
        for row in rows
    ]


def newest_statements(connection: Connection, study_patient_ids: Sequence[int]) -> dict[int, Statement]:
    """Return what the newest report says of each patient's study, where it says something."""
    found: dict[int, Statement] = {}
    for chunk in chunks(study_patient_ids):
        newest = select(func.max(report.c.id).label("id"), report.c.study_patient_id)
        rows = connection.execute(
            newest.where(report.c.study_patient_id.in_(chunk)).group_by(report.c.study_patient_id)
        ).all()
        said = statements(connection, [row.id for row in rows])
        found |= {row.study_patient_id: said[row.id] for row in rows if row.id in said}
    return found


def statements(connection: Connection, report_ids: Sequence[int]) -> dict[int, Statement]:
    """Return what each of these reports says, by its id; a report without a finding says nothing.

    The most telling film is one with the most serious verdict, among these the one with the highest probability, among
    these the first that came.
    """
    told: dict[int, Any] = {}
    for chunk in chunks(report_ids):
        # a report may be linked to several results of one film: later ones, which say the same
        linked = select(report_result.c.report_id, func.max(result.c.id).label("result_id"))
        linked = linked.join(result, result.c.id == report_result.c.result_id)
        newest = linked.where(report_result.c.report_id.in_(chunk)).group_by(
            report_result.c.report_id, result.c.instance_id
        )
        films = newest.subquery()
        columns = (
            films.c.report_id,
            report.c.version,
            result.c.instance_id,
            result.c.bundle,
            result.c.bundle_digest,
            result.c.verdict,
            result.c.probability,
            result.c.threshold,
        )
        joined = select(*columns).join(result, result.c.id == films.c.result_id)
        joined = joined.join(report, report.c.id == films.c.report_id).where(result.c.verdict.is_not(None))
        for row in connection.execute(joined):
            if row.report_id not in told or _rank(row) > _rank(told[row.report_id]):
                told[row.report_id] = row
    return {
        report_id: Statement(
            report_id=report_id,
            report_version=row.version,
            bundle=row.bundle,
            bundle_digest=row.bundle_digest,
            verdict=Verdict(row.verdict),
            probability=row.probability,
            threshold=row.threshold,
            instance_id=row.instance_id,
        )
        for report_id, row in told.items()
    }


def _accessions(connection: Connection, ids: Sequence[int]) -> dict[int, str]:
    """Return the accession number of each patient's study: that of its first film that has one."""
    found: dict[int, str] = {}
    for chunk in chunks(ids):
        columns = select(instance.c.study_patient_id, instance.c.accession).order_by(instance.c.id.desc())
        named = columns.where(instance.c.study_patient_id.in_(chunk), instance.c.accession != "")
        found |= {row.study_patient_id: row.accession for row in connection.execute(named)}
    return found


def _rank(row: Any) -> tuple[int, float, int]:
    return _TELLING.index(Verdict(row.verdict)), row.probability, -row.instance_id
