"""Every process can read when the database was last known to be writable."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the two instants, empty at first."""
    for name in ("writable_since", "writable_at"):
        op.add_column("clock", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
