"""Events get their place in the hash chain after they were written: those that are there have theirs already."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Number the events by their ids, which are in the order of the chain, and so the positions of who follows them."""
    op.add_column("event", sa.Column("seq", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE event SET seq = numbered.place"
        " FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM event) AS numbered"
        " WHERE event.id = numbered.id"
    )
    for table in ("projection", "audit_feed"):
        last = f'SELECT max(event.seq) FROM event WHERE event.id <= {table}."position"'  # noqa: S608 - ours
        op.execute(f'UPDATE {table} SET "position" = coalesce(({last}), 0)')  # noqa: S608 - ours
    for name, column, unique, condition in (
        ("ix_event_sealed", "seq", True, sa.text("seq IS NOT NULL")),
        ("ix_event_unsealed", "id", False, sa.text("seq IS NULL")),
    ):
        op.create_index(name, "event", [column], unique=unique, sqlite_where=condition, postgresql_where=condition)
    op.add_column("chain", sa.Column("owner", sa.Text(), nullable=True))
    op.add_column("chain", sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True))
