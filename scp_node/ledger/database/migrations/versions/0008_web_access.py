"""Who may use the web page, and who did what: persons with what they log in by, and the actor of each event."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_INSTANT: Final = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the tables; none of them holds anything of a patient."""
    op.create_table(
        "person",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(255)),
        sa.Column("password_hash", sa.Text()),
        sa.Column("must_change", sa.Boolean(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_person")),
        sa.UniqueConstraint("name", name=op.f("uq_person_name")),
        sa.UniqueConstraint("origin", "subject", name=op.f("uq_person_origin_subject")),
    )
    op.create_table(
        "web_session",
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("person_id", _ID, nullable=False),
        sa.Column("csrf", sa.String(64), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("seen_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_web_session")),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_web_session_person_id_person")),
    )
    op.create_index(op.f("ix_web_session_person_id"), "web_session", ["person_id"])
    op.create_table(
        "web_token",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("person_id", _ID, nullable=False),
        sa.Column("label", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("expires_at", _INSTANT),
        sa.Column("used_at", _INSTANT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_web_token")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_web_token_token_sha256")),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_web_token_person_id_person")),
    )
    op.create_index(op.f("ix_web_token_person_id"), "web_token", ["person_id"])
    op.create_table(
        "web_link",
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("person_id", _ID, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_web_link")),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_web_link_person_id_person")),
    )
    op.create_table(
        "web_browser",
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("person_id", _ID, nullable=False),
        sa.Column("seen_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_web_browser")),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_web_browser_person_id_person")),
    )
    op.create_index(op.f("ix_web_browser_person_id"), "web_browser", ["person_id"])
    op.create_table(
        "web_sign_on",
        sa.Column("state_sha256", sa.String(64), nullable=False),
        sa.Column("browser_sha256", sa.String(64), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("state_sha256", name=op.f("pk_web_sign_on")),
    )
    op.create_index(op.f("ix_web_sign_on_expires_at"), "web_sign_on", ["expires_at"])
    op.create_table(
        "web_attempt",
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_web_attempt")),
    )
    _name_actors()


def _name_actors() -> None:
    """Keep beside each event who did it, so that one person's events are found among a million."""
    op.add_column("event", sa.Column("actor", sa.String(128), server_default="", nullable=False))
    by = "json_extract(detail, '$.by')" if op.get_bind().dialect.name == "sqlite" else "detail ->> 'by'"
    op.execute(f"UPDATE event SET actor = substr(coalesce({by}, ''), 1, 128) WHERE kind = 'resolved'")  # noqa: S608
    op.create_index(op.f("ix_event_at"), "event", ["at"])
    is_of_person = sa.text("actor <> ''")
    for name, columns in (("ix_event_actor_at", ["actor", "at"]), ("ix_event_of_persons", ["at"])):
        op.create_index(name, "event", columns, sqlite_where=is_of_person, postgresql_where=is_of_person)
