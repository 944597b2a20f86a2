"""Reports are of one patient each, a person may choose between images of one UID, and processes name their settings."""

import hashlib
import json
from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_BATCH: Final = 1_000


def upgrade() -> None:
    """Give each patient of each study a row; the images name it, and so do the reports and their work.

    The issuers of the Patient IDs are not known here: they stand only in the headers.
    """
    op.create_table(
        "study_patient",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("study_uid", sa.String(64), nullable=False),
        sa.Column("patient_key", sa.String(64), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study_patient")),
        sa.UniqueConstraint("study_uid", "patient_key", name=op.f("uq_study_patient_study_uid_patient_key")),
    )
    op.create_table(
        "process",
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("may_differ", sa.Boolean(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_process")),
    )
    _name_patients(op.get_bind())
    kind = "BIGINT" if op.get_bind().dialect.name == "postgresql" else "INTEGER"
    for table in ("instance", "report"):
        # as SQL: SQLite accepts a foreign key with its column, Alembic would add it afterwards
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN study_patient_id {kind}"
            f" CONSTRAINT fk_{table}_study_patient_id_study_patient REFERENCES study_patient (id)"
        )
        op.create_index(op.f(f"ix_{table}_study_patient_id"), table, ["study_patient_id"], unique=False)
    op.add_column("instance", sa.Column("use", sa.String(16), server_default="read", nullable=False))
    op.execute(
        "UPDATE instance SET study_patient_id = (SELECT p.id FROM study_patient p"
        " WHERE p.study_uid = instance.study_uid AND p.patient_id = instance.patient_id)"
    )
    op.execute("UPDATE instance SET \"use\" = 'conflict' WHERE conflict")
    in_conflict = sa.text("\"use\" = 'conflict'")
    op.create_index(
        "ix_instance_conflict",
        "instance",
        ["id"],
        unique=False,
        sqlite_where=in_conflict,
        postgresql_where=in_conflict,
    )
    # a study had one report for all of its patients, in the name of the first one
    op.execute(
        "UPDATE report SET study_patient_id = (SELECT i.study_patient_id FROM instance i"
        " WHERE i.study_uid = report.study_uid AND NOT i.conflict ORDER BY i.id LIMIT 1)"
    )
    op.execute(
        "UPDATE work SET ref_id = (SELECT i.study_patient_id FROM instance i"
        " WHERE i.study_uid = work.dedup AND NOT i.conflict ORDER BY i.id LIMIT 1) WHERE queue = 'report'"
    )
    op.execute("UPDATE work SET dedup = CAST(ref_id AS TEXT) WHERE queue = 'report' AND ref_id IS NOT NULL")


def _name_patients(connection: sa.Connection) -> None:
    """Enter the patients; the recipe of the key is repeated here, since a migration must not change."""
    distinct = sa.text("SELECT DISTINCT study_uid, patient_id FROM instance ORDER BY study_uid, patient_id")
    insert = sa.text(
        "INSERT INTO study_patient (study_uid, patient_key, patient_id, issuer)"
        " VALUES (:study_uid, :patient_key, :patient_id, '')"
    )
    rows = connection.execute(distinct).all()
    for start in range(0, len(rows), _BATCH):
        connection.execute(
            insert,
            [
                {"study_uid": row.study_uid, "patient_id": row.patient_id, "patient_key": _key(row.patient_id)}
                for row in rows[start : start + _BATCH]
            ],
        )


def _key(patient_id: str) -> str:
    known = ["id", patient_id, ""] if patient_id else ["name", "", "", ""]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()
