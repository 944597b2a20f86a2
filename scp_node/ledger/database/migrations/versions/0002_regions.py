"""Results keep the regions that a model with a detector found."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; earlier results have no regions."""
    op.add_column("result", sa.Column("regions", sa.JSON(), server_default="[]", nullable=False))
