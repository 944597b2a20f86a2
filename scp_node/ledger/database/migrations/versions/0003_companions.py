"""Reports have companions, such as overlay pictures, and results keep the map that a picture shows."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_OF_REPORT: Final = "companion_id IS NULL"


def upgrade() -> None:
    """Add the table and columns; every earlier delivery becomes the delivery of a report."""
    op.add_column("result", sa.Column("attention", sa.LargeBinary(), nullable=True))
    op.add_column("result", sa.Column("grey_zone", sa.Float(), nullable=True))
    op.create_table(
        "companion",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("report_id", _ID, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("sop_class_uid", sa.String(64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("file", sa.LargeBinary(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["report_id"], ["report.id"], name=op.f("fk_companion_report_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_companion")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_companion_sop_instance_uid")),
    )
    op.create_index(op.f("ix_companion_report_id"), "companion", ["report_id"], unique=False)
    with op.batch_alter_table("delivery") as delivery:
        delivery.add_column(sa.Column("companion_id", _ID, nullable=True))
        delivery.create_foreign_key(op.f("fk_delivery_companion_id"), "companion", ["companion_id"], ["id"])
        delivery.drop_constraint(op.f("uq_delivery_destination_report_id"), type_="unique")
        delivery.create_unique_constraint(op.f("uq_delivery_destination_companion_id"), ["destination", "companion_id"])
    op.create_index(
        "ix_delivery_report",
        "delivery",
        ["destination", "report_id"],
        unique=True,
        sqlite_where=sa.text(_OF_REPORT),
        postgresql_where=sa.text(_OF_REPORT),
    )
