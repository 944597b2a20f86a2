"""Events form a hash chain; retention, interrupted studies, storage commitment and clock jumps have their rows."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_KEPT = "purged_at IS NULL"


def upgrade() -> None:
    """Add tables and columns."""
    for name in ("purging_at", "purged_at"):
        op.add_column("instance", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_instance_kept", "instance", ["received_at"], unique=False,
        sqlite_where=sa.text(_KEPT), postgresql_where=sa.text(_KEPT),
    )  # fmt: skip
    op.create_table(
        "study",
        sa.Column("study_uid", sa.String(64), nullable=False),
        sa.Column("interrupted", sa.Boolean(), nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("study_uid", name=op.f("pk_study")),
    )
    op.add_column("delivery", sa.Column("transaction_uid", sa.String(64), nullable=True))
    op.add_column("delivery", sa.Column("committed_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(op.f("ix_delivery_transaction_uid"), "delivery", ["transaction_uid"], unique=False)
    for name in ("previous_hash", "hash"):
        op.add_column("event", sa.Column(name, sa.String(64), server_default="", nullable=False))
    op.create_table(
        "chain",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("head", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chain")),
    )
    op.create_table(
        "clock",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("jumps", sa.Integer(), nullable=False),
        sa.Column("jumped_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clock")),
    )
    op.execute("INSERT INTO chain (id, length, head) VALUES (1, 0, '')")
    op.execute("INSERT INTO clock (id, jumps, jumped_seconds) VALUES (1, 0, 0)")
