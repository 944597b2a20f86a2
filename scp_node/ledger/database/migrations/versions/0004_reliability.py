"""Events form a hash chain; retention, interrupted studies, storage commitment and clock jumps get their rows."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KEPT: Final = "purged_at IS NULL"


def upgrade() -> None:
    """Add tables and columns, and chain the existing events."""
    for name in ("purging_at", "purged_at"):
        op.add_column("instance", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_instance_kept",
        "instance",
        ["received_at"],
        unique=False,
        sqlite_where=sa.text(_KEPT),
        postgresql_where=sa.text(_KEPT),
    )
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
    _chain_events(op.get_bind())
    op.execute("INSERT INTO clock (id, jumps, jumped_seconds) VALUES (1, 0, 0)")


# The recipe of the hash is repeated here, not imported: a migration must not change after its release.
# A test compares the two. Should the program's recipe ever change, a later migration has to carry the change.

_BATCH: Final = 1_000
_event = sa.table(
    "event",
    sa.column("id", _ID),
    sa.column("at", sa.DateTime(timezone=True)),
    sa.column("kind", sa.Text),
    sa.column("study_uid", sa.Text),
    sa.column("sop_instance_uid", sa.Text),
    sa.column("detail", sa.JSON),
    sa.column("previous_hash", sa.Text),
    sa.column("hash", sa.Text),
)


def _chain_events(connection: sa.Connection) -> None:
    last, length, head = -1, 0, ""
    batch = sa.select(_event).order_by(_event.c.id).limit(_BATCH)
    links = sa.update(_event).where(_event.c.id == sa.bindparam("event_id"))
    links = links.values(previous_hash=sa.bindparam("previous"), hash=sa.bindparam("own"))
    while rows := connection.execute(batch.where(_event.c.id > last)).all():
        values = []
        for row in rows:
            previous, head = head, _hash(head, row)
            values.append({"event_id": row.id, "previous": previous, "own": head})
        connection.execute(links, values)
        last, length = rows[-1].id, length + len(rows)
    connection.execute(
        sa.text("INSERT INTO chain (id, length, head) VALUES (1, :length, :head)"), {"length": length, "head": head}
    )


def _hash(previous: str, row: Any) -> str:
    told = [previous, _instant(row.at), row.kind, row.study_uid, row.sop_instance_uid, row.detail]
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def _instant(at: datetime) -> str:
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)  # SQLite keeps UTC without saying so
    return aware.astimezone(UTC).isoformat(timespec="microseconds")
