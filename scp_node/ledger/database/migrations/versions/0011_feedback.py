"""Readers say what they think of results, and a sample of each day is drawn for them to read."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_DRAWN: Final = sa.text("weight IS NOT NULL")


def upgrade() -> None:
    """Add the tables, and the index by which the reports of a day are found."""
    op.create_table(
        "feedback",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("study_patient_id", _ID, nullable=False),
        sa.Column("reader", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("opinion", sa.String(16), nullable=False),
        sa.Column("truth", sa.String(16), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("blind", sa.Boolean(), nullable=False),
        sa.Column("report_version", sa.Integer(), nullable=False),
        sa.Column("bundle_digest", sa.String(71), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
        sa.ForeignKeyConstraint(
            ["study_patient_id"], ["study_patient.id"], name=op.f("fk_feedback_study_patient_id_study_patient")
        ),
        sa.UniqueConstraint("study_patient_id", "reader", name=op.f("uq_feedback_study_patient_id_reader")),
    )
    op.create_index(op.f("ix_feedback_at"), "feedback", ["at"], unique=False)
    op.create_table(
        "reading_day",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("positive", sa.Integer(), nullable=False),
        sa.Column("negative", sa.Integer(), nullable=False),
        sa.Column("without_result", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_reading_day")),
    )
    op.create_table(
        "reading_frame",
        sa.Column("study_patient_id", _ID, autoincrement=False, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("report_version", sa.Integer(), nullable=False),
        sa.Column("bundle", sa.Text(), nullable=False),
        sa.Column("bundle_digest", sa.String(71), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("view", sa.String(16), nullable=False),
        sa.Column("weight", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("study_patient_id", name=op.f("pk_reading_frame")),
        sa.ForeignKeyConstraint(
            ["study_patient_id"], ["study_patient.id"], name=op.f("fk_reading_frame_study_patient_id_study_patient")
        ),
    )
    for column in ("day", "calling_ae", "view", "bundle"):
        op.create_index(op.f(f"ix_reading_frame_{column}"), "reading_frame", [column], unique=False)
    op.create_index(
        "ix_reading_frame_drawn",
        "reading_frame",
        ["day", "study_patient_id"],
        unique=False,
        sqlite_where=_DRAWN,
        postgresql_where=_DRAWN,
    )
    op.create_index(op.f("ix_report_at"), "report", ["at"], unique=False)
