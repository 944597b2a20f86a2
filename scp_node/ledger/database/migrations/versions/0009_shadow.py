"""What a bundle on trial said of an image, beside the finding that was reported."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the table, empty at first."""
    op.create_table(
        "shadow_result",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("instance_id", _ID, nullable=False),
        sa.Column("study_uid", sa.String(64), nullable=False),
        sa.Column("result_id", _ID, nullable=False),
        sa.Column("reported_verdict", sa.String(16), nullable=False),
        sa.Column("bundle", sa.Text(), nullable=False),
        sa.Column("bundle_digest", sa.String(71), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=True),
        sa.Column("agrees", sa.Boolean(), nullable=True),
        sa.Column("probability", sa.Float(), nullable=True),
        sa.Column("logit", sa.Float(), nullable=True),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("reason", sa.String(32), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["instance_id"], ["instance.id"], name=op.f("fk_shadow_result_instance_id")),
        sa.ForeignKeyConstraint(["result_id"], ["result.id"], name=op.f("fk_shadow_result_result_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadow_result")),
        sa.UniqueConstraint("instance_id", "bundle_digest", name=op.f("uq_shadow_result_instance_id_bundle_digest")),
    )
    op.create_index(
        op.f("ix_shadow_result_study_uid_bundle_digest_at"),
        "shadow_result",
        ["study_uid", "bundle_digest", "at"],
        unique=False,
    )
    op.create_index(
        "ix_shadow_result_pairs",
        "shadow_result",
        ["bundle_digest", "at", "id", "reported_verdict", "verdict"],
        unique=False,
    )
    op.create_index(
        "ix_shadow_result_disagreeing",
        "shadow_result",
        ["bundle_digest", "at", "id"],
        unique=False,
        sqlite_where=sa.text("agrees = 0"),
        postgresql_where=sa.text("agrees = false"),
    )
