"""The list of studies, its daily counts and its search: projections, filled by the first process that follows them."""

from typing import Final

import sqlalchemy as sa
from alembic import op

from scp_node.logs import get_logger

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_INSTANT: Final = sa.DateTime(timezone=True)
_FILTERS: Final = ("state", "verdict", "calling_ae", "bundle", "reason", "feedback")


log = get_logger(__name__)


def upgrade() -> None:
    """Add the tables, empty at first, and the index of the search."""
    _worklist()
    _counts()
    op.create_table(
        "projection",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("lease_until", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projection")),
    )
    op.execute('INSERT INTO projection (id, phase, "position", "cursor") VALUES (1, \'clear\', 0, 0)')
    if op.get_bind().dialect.name == "sqlite":
        _sqlite_search()
    else:
        _postgresql_search(op.get_bind())


def _worklist() -> None:
    op.create_table(
        "worklist",
        sa.Column("id", _ID, autoincrement=False, nullable=False),
        sa.Column("study_uid", sa.String(64), nullable=False),
        sa.Column("patient_key", sa.String(64), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("patient_id", "patient_name", "accession")),
        sa.Column("sex", sa.String(1), nullable=False),
        sa.Column("age", sa.String(4), nullable=False),
        sa.Column("views", sa.Text(), nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("interrupted", sa.Boolean(), nullable=False),
        sa.Column("newest_at", _INSTANT, nullable=False),
        sa.Column("received_at", _INSTANT, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=True),
        *(sa.Column(name, sa.Float(), nullable=True) for name in ("probability", "threshold", "grey_zone")),
        sa.Column("bundle", sa.Text(), nullable=True),
        sa.Column("bundle_digest", sa.String(71), nullable=True),
        sa.Column("report_version", sa.Integer(), nullable=True),
        sa.Column("delivery_state", sa.String(16), nullable=True),
        *(
            sa.Column(name, _INSTANT, nullable=True)
            for name in ("waiting_since", "reported_at", "delivered_at", "committed_at")
        ),
        sa.Column("feedback", sa.Text(), nullable=True),
        sa.Column("search", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worklist")),
    )
    op.create_index("ix_worklist_newest", "worklist", ["newest_at", "id"], unique=False)
    op.create_index(op.f("ix_worklist_study_uid"), "worklist", ["study_uid"], unique=False)
    for name in _FILTERS:
        op.create_index(f"ix_worklist_{name}", "worklist", [name, "newest_at", "id"], unique=False)
    waits = sa.text("waiting_since IS NOT NULL")
    op.create_index(
        "ix_worklist_waiting", "worklist", ["waiting_since"], unique=False, sqlite_where=waits, postgresql_where=waits
    )


def _counts() -> None:
    op.create_table(
        "film",
        sa.Column("id", _ID, autoincrement=False, nullable=False),
        sa.Column("study_patient_id", _ID, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("view", sa.String(16), nullable=False),
        sa.Column("bundle", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("probability", sa.Float(), nullable=True),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_film")),
    )
    op.create_index(op.f("ix_film_study_patient_id"), "film", ["study_patient_id"], unique=False)
    op.create_table(
        "daily",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("view", sa.String(16), nullable=False),
        sa.Column("bundle", sa.Text(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("day", "calling_ae", "view", "bundle", name=op.f("pk_daily")),
    )


def _sqlite_search() -> None:
    """Add an index of trigrams over `worklist.search`, which triggers keep exact."""
    remove = "INSERT INTO worklist_search (worklist_search, rowid, search) VALUES ('delete', old.id, old.search);"
    add = "INSERT INTO worklist_search (rowid, search) VALUES (new.id, new.search);"
    indexed = "search, content='worklist', content_rowid='id', tokenize='trigram case_sensitive 1'"
    changed = "AFTER UPDATE OF search ON worklist WHEN old.search IS NOT new.search"
    for statement in (
        f"CREATE VIRTUAL TABLE worklist_search USING fts5({indexed})",
        f"CREATE TRIGGER worklist_search_insert AFTER INSERT ON worklist BEGIN {add} END",
        f"CREATE TRIGGER worklist_search_delete AFTER DELETE ON worklist BEGIN {remove} END",
        f"CREATE TRIGGER worklist_search_update {changed} BEGIN {remove} {add} END",
    ):
        op.execute(statement)


def _postgresql_search(connection: sa.Connection) -> None:
    """Add an index of trigrams where this user may have one; without it a search reads every row."""
    try:
        with connection.begin_nested():
            connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS pg_trgm"))
            connection.execute(sa.text("CREATE INDEX ix_worklist_search ON worklist USING gin (search gin_trgm_ops)"))
    except sa.exc.DBAPIError as error:
        log.warning(
            "search of studies has no index, and reads every row",
            reason=str(error.orig).splitlines()[0] if error.orig else type(error).__name__,
        )
