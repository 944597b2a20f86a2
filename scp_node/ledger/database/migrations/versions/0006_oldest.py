"""The oldest ready work has an index that PostgreSQL cannot replace with the primary key."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_READY: Final = "state = 'ready'"


def upgrade() -> None:
    """Put the instant before the id: by the id alone, PostgreSQL would read the primary key from its start."""
    op.drop_index("ix_work_ready_oldest", table_name="work")
    op.create_index(
        "ix_work_ready_oldest",
        "work",
        ["queue", "created_at", "id"],
        unique=False,
        sqlite_where=sa.text(_READY),
        postgresql_where=sa.text(_READY),
    )
