"""The oldest ready work is found by an index that no other can stand in for."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_READY: Final = "state = 'ready'"


def upgrade() -> None:
    """Order by the instant, too: by the id alone the primary key would do, which begins with what is done."""
    op.drop_index("ix_work_ready_oldest", table_name="work")
    op.create_index(
        "ix_work_ready_oldest",
        "work",
        ["queue", "created_at", "id"],
        unique=False,
        sqlite_where=sa.text(_READY),
        postgresql_where=sa.text(_READY),
    )
