"""The tables. The migrations create them, and a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)


class Use(StrEnum):
    """What becomes of an image among those with its SOP Instance UID."""

    READ = "read"  # it is analysed, and stands for the UID
    CONFLICT = "conflict"  # another came before with other bytes; a person decides
    DUPLICATE = "duplicate"  # another encoding of the one that is read
    SET_ASIDE = "set-aside"  # a person chose another one


class UtcDateTime(TypeDecorator[datetime]):
    """An aware instant, kept in UTC so that SQLite's text sorts in order of time."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return `value` in the database's form; a naive datetime is an error."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("an instant needs a time zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - signature is SQLAlchemy's
        """Return the aware instant in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows only in an INTEGER PRIMARY KEY
Uid = String(64)  # PS3.5 Table 6.2-1
Digest = String(71)  # "sha256:" and 64 hexadecimal digits
ACTOR_LENGTH: Final = 128  # characters of a name that are kept beside the event, to look for it


def _id() -> Column[Any]:
    return Column("id", Id, primary_key=True, autoincrement=True)


study_patient = Table(  # one row for each patient that a study names: each gets a report of its own
    "study_patient",
    metadata,
    _id(),
    Column("study_uid", Uid, nullable=False),
    Column("patient_key", String(64), nullable=False),  # see ReceivedInstance.patient_key
    Column("patient_id", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    UniqueConstraint("study_uid", "patient_key"),
)

instance = Table(
    "instance",
    metadata,
    _id(),
    Column("sop_instance_uid", Uid, nullable=False),
    Column("sop_class_uid", Uid, nullable=False),
    Column("study_uid", Uid, nullable=False),
    Column("study_patient_id", Id, ForeignKey("study_patient.id")),
    Column("series_uid", Uid, nullable=False),
    Column("accession", Text, nullable=False),
    Column("patient_id", Text, nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("called_ae", String(16), nullable=False),
    Column("peer", Text, nullable=False),
    Column("transfer_syntax", Uid, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("spool_path", Text, nullable=False, unique=True),
    Column("header", LargeBinary, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("conflict", Boolean, nullable=False),  # it came when another had the same SOP Instance UID but other bytes
    Column("use", String(16), nullable=False, server_default="read"),  # see Use
    Column("received_at", UtcDateTime, nullable=False),
    Column("registered_at", UtcDateTime, nullable=False),
    Column("purging_at", UtcDateTime),  # start of the removal of its file: from then on nothing may read it
    Column("purged_at", UtcDateTime),  # end of the removal of its file; the row stays
    UniqueConstraint("sop_instance_uid", "sha256"),
    Index(None, "study_uid"),
    Index(None, "study_patient_id"),
    Index(
        "ix_instance_conflict",
        "id",
        sqlite_where=text("\"use\" = 'conflict'"),
        postgresql_where=text("\"use\" = 'conflict'"),
    ),
    Index(None, "accession"),
    Index(None, "received_at"),
    Index(
        "ix_instance_kept",
        "received_at",
        sqlite_where=text("purged_at IS NULL"),
        postgresql_where=text("purged_at IS NULL"),
    ),
)

WITHOUT_HEADER: Final = [column for column in instance.c if column is not instance.c.header]  # which is large

study = Table(
    "study",
    metadata,
    Column("study_uid", Uid, primary_key=True),
    Column("interrupted", Boolean, nullable=False),  # the last association that sent its images ended without a release
    Column("calling_ae", String(16), nullable=False),
    Column("peer", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

result = Table(
    "result",
    metadata,
    _id(),
    Column("instance_id", Id, ForeignKey("instance.id"), nullable=False),
    Column("run", Integer, nullable=False),  # 1, 2, ...: results are added, never changed
    Column("bundle", Text, nullable=False),
    Column("bundle_digest", Digest, nullable=False),
    Column("outcome", String(16), nullable=False),  # "finding", or the completion of a NotAnalysed
    Column("verdict", String(16)),
    Column("probability", Float),
    Column("logit", Float),
    Column("threshold", Float),
    Column("grey_zone", Float),  # null: none
    Column("calibration", Text),
    Column("reason", String(32)),
    Column("detail", Text, nullable=False),
    Column("notes", JSON, nullable=False),
    Column("input_stats", JSON, nullable=False),
    Column("regions", JSON, nullable=False, server_default="[]"),
    Column("attention", LargeBinary),  # see Finding.attention
    Column("timings", JSON, nullable=False),
    Column("started_at", UtcDateTime),
    Column("at", UtcDateTime, nullable=False),
    UniqueConstraint("instance_id", "bundle_digest", "run"),
)

shadow_result = Table(  # by a bundle on trial: apart from `result`, so that no report and no audit row can show one
    "shadow_result",
    metadata,
    _id(),
    Column("instance_id", Id, ForeignKey("instance.id"), nullable=False),
    Column("study_uid", Uid, nullable=False),  # of the image, so that one index finds the newest of a study
    Column("result_id", Id, ForeignKey("result.id"), nullable=False),  # the finding that it stands beside
    Column("reported_verdict", String(16), nullable=False),  # of that finding, which never changes
    Column("bundle", Text, nullable=False),
    Column("bundle_digest", Digest, nullable=False),
    Column("outcome", String(16), nullable=False),  # see result.outcome
    Column("verdict", String(16)),
    Column("agrees", Boolean),  # whether both verdicts are the same; null without a verdict
    Column("probability", Float),
    Column("logit", Float),
    Column("threshold", Float),
    Column("reason", String(32)),
    Column("detail", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    UniqueConstraint("instance_id", "bundle_digest"),
    Index(None, "study_uid", "bundle_digest", "at"),
    # pages of pairs, and their numbers by verdict, each read from the index alone
    Index("ix_shadow_result_pairs", "bundle_digest", "at", "id", "reported_verdict", "verdict"),
    Index(
        "ix_shadow_result_disagreeing",
        "bundle_digest",
        "at",
        "id",
        sqlite_where=text("agrees = 0"),
        postgresql_where=text("agrees = false"),
    ),
)

report = Table(
    "report",
    metadata,
    _id(),
    Column("study_uid", Uid, nullable=False),
    Column("study_patient_id", Id, ForeignKey("study_patient.id")),
    Column("version", Integer, nullable=False),
    Column("bundle_digest", Digest, nullable=False),
    Column("content_digest", Digest, nullable=False),
    Column("sop_class_uid", Uid, nullable=False),
    Column("sop_instance_uid", Uid, nullable=False, unique=True),
    Column("series_instance_uid", Uid, nullable=False),
    Column("supersedes", Id, ForeignKey("report.id")),
    Column("file", LargeBinary, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    UniqueConstraint("study_uid", "version"),  # counted over all patients that the study names
    Index(None, "study_patient_id"),
    Index(None, "at"),
)

report_result = Table(
    "report_result",
    metadata,
    Column("report_id", Id, ForeignKey("report.id"), primary_key=True),
    Column("result_id", Id, ForeignKey("result.id"), primary_key=True),
    Index(None, "result_id"),
)

companion = Table(
    "companion",
    metadata,
    _id(),
    Column("report_id", Id, ForeignKey("report.id"), nullable=False),
    Column("kind", String(32), nullable=False),  # overlay, text
    Column("sop_class_uid", Uid, nullable=False),
    Column("sop_instance_uid", Uid, nullable=False, unique=True),
    Column("series_instance_uid", Uid, nullable=False),
    Column("file", LargeBinary, nullable=False),
    Column("sha256", String(64), nullable=False),
    Index(None, "report_id"),
)

delivery = Table(
    "delivery",
    metadata,
    _id(),
    Column("report_id", Id, ForeignKey("report.id"), nullable=False),
    Column("companion_id", Id, ForeignKey("companion.id")),  # null: the report itself
    Column("destination", String(32), nullable=False),
    Column("state", String(16), nullable=False),  # see DeliveryState
    Column("dimse_status", Integer),
    Column("sop_class_uid", Uid),
    Column("attempts", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_attempt_at", UtcDateTime),
    Column("delivered_at", UtcDateTime),
    Column("transaction_uid", Uid),  # of the newest storage commitment request
    Column("committed_at", UtcDateTime),  # when the destination committed itself, or C-FIND found the object
    UniqueConstraint("destination", "companion_id"),
    Index(
        "ix_delivery_report",
        "destination",
        "report_id",
        unique=True,
        sqlite_where=text("companion_id IS NULL"),
        postgresql_where=text("companion_id IS NULL"),
    ),
    Index(None, "report_id"),
    Index(None, "transaction_uid"),
)

destination = Table(
    "destination",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("failures", Integer, nullable=False),  # in a row
    Column("paused_until", UtcDateTime),
    Column("detail", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

work = Table(
    "work",
    metadata,
    _id(),
    Column("queue", String(64), nullable=False),  # see queue_kinds.py
    Column("dedup", String(64), nullable=False),
    Column("ref_id", Id),
    Column("state", String(16), nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("attempt", Integer, nullable=False),  # counted at claim
    Column("max_attempts", Integer),  # null: no limit
    Column("due_at", UtcDateTime),
    Column("lease_owner", Text),
    Column("lease_token", BigInteger, nullable=False),
    Column("lease_until", UtcDateTime),
    Column("error", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("done_at", UtcDateTime),
    UniqueConstraint("queue", "dedup"),
    # A claim reads the front of one index, however many rows wait, sleep or are done. If the order were the id alone,
    # PostgreSQL could read the primary key instead, which begins with the rows that are done.
    Index(
        "ix_work_ready",
        "queue",
        "priority",
        "id",
        sqlite_where=text("state = 'ready'"),
        postgresql_where=text("state = 'ready'"),
    ),
    Index(
        "ix_work_ready_oldest",
        "queue",
        "created_at",
        "id",
        sqlite_where=text("state = 'ready'"),
        postgresql_where=text("state = 'ready'"),
    ),
    Index(
        "ix_work_delayed", "due_at", sqlite_where=text("state = 'delayed'"), postgresql_where=text("state = 'delayed'")
    ),
    Index(
        "ix_work_leased",
        "lease_until",
        sqlite_where=text("state = 'leased'"),
        postgresql_where=text("state = 'leased'"),
    ),
    Index("ix_work_dead", "id", sqlite_where=text("state = 'dead'"), postgresql_where=text("state = 'dead'")),
    Index(None, "queue", "ref_id"),
    postgresql_with={"fillfactor": "70"},
)

event = Table(
    "event",
    metadata,
    _id(),
    Column("at", UtcDateTime, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("study_uid", Uid, nullable=False),
    Column("sop_instance_uid", Uid, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("previous_hash", String(64), nullable=False, server_default=""),
    Column("hash", String(64), nullable=False, server_default=""),
    Column("actor", String(ACTOR_LENGTH), nullable=False, server_default=""),  # detail's "by": the person who did it
    Column("seq", BigInteger),  # 1, 2, ...: its place in the chain; null until it is sealed
    Index(None, "at"),
    Index(None, "kind", "at"),
    Index(None, "study_uid"),
    Index("ix_event_actor_at", "actor", "at", sqlite_where=text("actor <> ''"), postgresql_where=text("actor <> ''")),
    Index("ix_event_of_persons", "at", sqlite_where=text("actor <> ''"), postgresql_where=text("actor <> ''")),
    Index(
        "ix_event_sealed",
        "seq",
        unique=True,
        sqlite_where=text("seq IS NOT NULL"),
        postgresql_where=text("seq IS NOT NULL"),
    ),
    Index("ix_event_unsealed", "id", sqlite_where=text("seq IS NULL"), postgresql_where=text("seq IS NULL")),
)

process = Table(  # the workers and senders of this ledger, as long as each renews its row
    "process",
    metadata,
    Column("owner", String(255), primary_key=True),
    Column("settings", JSON, nullable=False),  # those that decide results and routing
    Column("may_differ", Boolean, nullable=False),  # a person allowed it to work by other settings
    Column("seen_at", UtcDateTime, nullable=False),
)

chain = Table(
    "chain",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),  # 1: the one row
    Column("length", BigInteger, nullable=False),  # sealed events
    Column("head", String(64), nullable=False),  # hash of the last of them
    Column("owner", Text),  # the process that seals
    Column("lease_until", UtcDateTime),
)

audit_feed = Table(  # how far a collector elsewhere has the events
    "audit_feed",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),  # 1: the one row
    Column("position", BigInteger, nullable=False),  # event.seq of the last event that it has
    Column("taken", BigInteger, nullable=False),  # number of events that it has
    Column("owner", Text),  # the process that sends them
    Column("lease_until", UtcDateTime),
)

clock = Table(
    "clock",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),  # 1: the one row
    Column("jumps", Integer, nullable=False),  # number of corrected jumps of the wall clock
    Column("jumped_seconds", Float, nullable=False),  # sum of those jumps
    Column("writable_since", UtcDateTime),  # start of the time without a long pause in writing
    Column("writable_at", UtcDateTime),  # last proof that the database can be written to
)

person = Table(  # who may use the web page
    "person",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),  # casefolded
    Column("role", String(16), nullable=False),  # see PersonRole
    Column("origin", String(16), nullable=False),  # local, oidc, header
    Column("subject", String(255)),  # who they are at their single sign-on, where names may change
    Column("password_hash", Text),  # argon2; null: the person logs in elsewhere
    Column("must_change", Boolean, nullable=False),  # the password, at the next login
    Column("disabled", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("origin", "subject"),
)

web_session = Table(
    "web_session",
    metadata,
    Column("token_sha256", String(64), primary_key=True),  # the token itself is in the person's cookie alone
    Column("person_id", Id, ForeignKey("person.id"), nullable=False),
    Column("csrf", String(64), nullable=False),
    Column("address", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Index(None, "person_id"),
)

web_token = Table(  # for scripts
    "web_token",
    metadata,
    _id(),
    Column("token_sha256", String(64), nullable=False, unique=True),
    Column("person_id", Id, ForeignKey("person.id"), nullable=False),
    Column("label", String(64), nullable=False),
    Column("role", String(16), nullable=False),  # the most that it may, whatever its person may
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("used_at", UtcDateTime),
    Index(None, "person_id"),
)

web_link = Table(  # logs in once
    "web_link",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    Column("person_id", Id, ForeignKey("person.id"), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
)

web_browser = Table(  # browsers in which a person has logged in before: strangers cannot shut their owner out
    "web_browser",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    Column("person_id", Id, ForeignKey("person.id"), nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Index(None, "person_id"),
)

web_sign_on = Table(  # logins that were begun at the single sign-on and are not back yet
    "web_sign_on",
    metadata,
    Column("state_sha256", String(64), primary_key=True),  # of what comes back in the address
    Column("browser_sha256", String(64), nullable=False),  # of what the browser holds in a cookie
    Column("place", Text, nullable=False),  # where the person wanted to go
    Column("expires_at", UtcDateTime, nullable=False),
    Index(None, "expires_at"),
)

web_attempt = Table(  # failed logins
    "web_attempt",
    metadata,
    Column("subject", String(64), primary_key=True),  # SHA-256 of an account, an address or a browser
    Column("failures", Integer, nullable=False),  # in a row
    Column("at", UtcDateTime, nullable=False),
)

feedback = Table(  # what each reader says now of each patient's study; former answers are in the events
    "feedback",
    metadata,
    _id(),
    Column("study_patient_id", Id, ForeignKey("study_patient.id"), nullable=False),
    Column("reader", String(64), nullable=False),  # casefolded
    Column("number", Integer, nullable=False),  # 1, 2, ...: how often the reader has answered
    Column("opinion", String(16), nullable=False),  # see Opinion
    Column("truth", String(16), nullable=False),  # see Truth
    Column("comment", Text, nullable=False),
    Column("source", String(16), nullable=False),  # see Source
    Column("blind", Boolean, nullable=False),  # the result was not shown before the answer
    Column("report_version", Integer, nullable=False),  # the report that it is about
    Column("bundle_digest", Digest, nullable=False),
    Column("verdict", String(16), nullable=False),  # what that report says
    Column("at", UtcDateTime, nullable=False),
    UniqueConstraint("study_patient_id", "reader"),
    Index(None, "at"),
)

reading_day = Table(  # the days whose reading sample is drawn
    "reading_day",
    metadata,
    Column("day", Date, primary_key=True),  # in UTC
    Column("positive", Integer, nullable=False),  # patients' studies first reported that day, by what the report says
    Column("negative", Integer, nullable=False),
    Column("without_result", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

reading_frame = Table(  # each patient's study with a result, as it stood at the end of the day of its first report
    "reading_frame",
    metadata,
    Column("study_patient_id", Id, ForeignKey("study_patient.id"), primary_key=True, autoincrement=False),
    Column("day", Date, nullable=False),
    Column("report_version", Integer, nullable=False),
    Column("bundle", Text, nullable=False),
    Column("bundle_digest", Digest, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("probability", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("view", String(16), nullable=False),
    Column("weight", Float),  # inverse of the rate at which it was drawn; null: it was not
    Index(None, "day"),
    Index(None, "calling_ae"),
    Index(None, "view"),
    Index(None, "bundle"),
    Index(
        "ix_reading_frame_drawn",
        "day",
        "study_patient_id",
        sqlite_where=text("weight IS NOT NULL"),
        postgresql_where=text("weight IS NOT NULL"),
    ),
)

# Projections: the list of studies and the daily counts, made from the tables above by following the events. Nothing but
# `scp_node.ledger.projector` writes them, and they can be made again from nothing at any time.

_NEWEST: Final = ("newest_at", "id")  # the order of the list

worklist = Table(  # one row for each patient of a study
    "worklist",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),  # that of study_patient
    Column("study_uid", Uid, nullable=False),
    Column("patient_key", String(64), nullable=False),
    Column("patient_id", Text, nullable=False),
    Column("patient_name", Text, nullable=False),  # as people read it
    Column("accession", Text, nullable=False),
    Column("sex", String(1), nullable=False),  # M, F, O or empty
    Column("age", String(4), nullable=False),  # AS, such as 064Y, or empty
    Column("views", Text, nullable=False),  # such as "PA, LL"
    Column("calling_ae", String(16), nullable=False),  # that sent the newest film
    Column("images", Integer, nullable=False),  # films; neither duplicates nor pictures of this node
    Column("interrupted", Boolean, nullable=False),  # see study
    Column("newest_at", UtcDateTime, nullable=False),  # when its newest film was received
    Column("received_at", UtcDateTime, nullable=False),  # when its first film was
    Column("state", String(16), nullable=False),  # see StudyState
    Column("reason", String(32)),  # see domain.Reason: of the film that says most about what is missing
    Column("detail", Text, nullable=False),  # the words of the destination, or of the step that gave up
    Column("verdict", String(16)),  # of the film that says most
    Column("probability", Float),
    Column("threshold", Float),
    Column("grey_zone", Float),
    Column("bundle", Text),
    Column("bundle_digest", Digest),
    Column("report_version", Integer),
    Column("delivery_state", String(16)),  # see DeliveryState: the least of those of the newest report
    Column("waiting_since", UtcDateTime),  # null: nothing waits
    Column("reported_at", UtcDateTime),
    Column("delivered_at", UtcDateTime),  # when the last of the destinations took the report
    Column("committed_at", UtcDateTime),
    Column("feedback", Text),
    Column("search", Text, nullable=False),  # see ledger/search.py
    Index("ix_worklist_newest", *_NEWEST),
    Index(None, "study_uid"),
    Index("ix_worklist_state", "state", *_NEWEST),
    Index("ix_worklist_verdict", "verdict", *_NEWEST),
    Index("ix_worklist_calling_ae", "calling_ae", *_NEWEST),
    Index("ix_worklist_bundle", "bundle", *_NEWEST),
    Index("ix_worklist_reason", "reason", *_NEWEST),
    Index("ix_worklist_feedback", "feedback", *_NEWEST),
    Index(
        "ix_worklist_waiting",
        "waiting_since",
        sqlite_where=text("waiting_since IS NOT NULL"),
        postgresql_where=text("waiting_since IS NOT NULL"),
    ),
)

film = Table(  # what `daily` counts of one image
    "film",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),  # that of instance
    Column("study_patient_id", Id, nullable=False),
    Column("day", Date, nullable=False),  # of its receipt, in UTC
    Column("calling_ae", String(16), nullable=False),
    Column("view", String(16), nullable=False),
    Column("bundle", Text, nullable=False),  # "": no result yet
    Column("outcome", String(16), nullable=False),  # see FilmOutcome
    Column("reason", String(32), nullable=False),
    Column("probability", Float),
    Column("inputs", JSON, nullable=False),  # some of result.input_stats
    Column("seconds", Float),  # from its receipt to the first delivery of a report of it
    Index(None, "study_patient_id"),
)

daily = Table(
    "daily",
    metadata,
    Column("day", Date, primary_key=True),
    Column("calling_ae", String(16), primary_key=True),
    Column("view", String(16), primary_key=True),
    Column("bundle", Text, primary_key=True),
    Column("counts", JSON, nullable=False),  # see ledger/daily.py
)

projection = Table(
    "projection",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),  # 1: the one row
    Column("phase", String(16), nullable=False),  # see Phase
    Column("position", BigInteger, nullable=False),  # event.seq of the last event that was followed
    Column("cursor", BigInteger, nullable=False),  # rows of study_patient with a lower id wait to be filled in
    Column("owner", Text),
    Column("lease_until", UtcDateTime),
)

PROJECTIONS: Final = frozenset({worklist, film, daily, projection})
RECORDS: Final = [table for table in metadata.sorted_tables if table not in PROJECTIONS]
