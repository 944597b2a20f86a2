"""A ledger on each database, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, make_url, text

from scp_node.domain import BuiltObject, BuiltReport, Finding, ModelIdentity, Outcome, Priority, ReceivedInstance
from scp_node.ledger import (
    Analysed,
    AuditQuery,
    Ledger,
    Policy,
    ShadowOutcome,
    StudySnapshot,
    Takes,
    create_ledger_engine,
    takes_all,
    upgrade,
)
from scp_node.ledger.database import migrations
from scp_node.ledger.database.engine import sqlite_file
from scp_node.opening import upgrade_database
from scp_node.settings import Settings

MODEL: Final = ModelIdentity(
    name="test-model", version="1.0", digest="sha256:" + "a" * 64, status="research", threshold=0.5, calibration="none"
)
SHADOW: Final = replace(MODEL, name="trial-model", digest="sha256:" + "5" * 64, threshold=0.4)
LEASE: Final = timedelta(seconds=15)
QUIET: Final = timedelta(seconds=10)
PATIENCE: Final = 60.0  # seconds for a lock: where many tests share a disk, a fair wait may be long
POLICY: Final = Policy(quiet=QUIET, lease=LEASE, max_attempts=3)


@contextmanager
def ledger_engine(url: str | Path) -> Iterator[Engine]:
    """Open an empty database, a database with an empty ledger, or a file that is not there, as a ledger."""
    if isinstance(url, Path):
        with url.open("xb") as file:
            file.write(_empty_ledger())
    address = f"sqlite:///{url}" if isinstance(url, Path) else url
    engine = create_ledger_engine(address, patience=PATIENCE)
    try:
        if not isinstance(url, Path):
            upgrade(engine)
        yield engine
    finally:
        engine.dispose()


def begin_ledger(settings: Settings) -> None:
    """Do what `scp-node db upgrade` does where there is no ledger yet, on SQLite."""
    file = sqlite_file(make_url(settings.database_url))
    assert file
    file.parent.mkdir(parents=True, mode=0o700)
    file.touch(mode=0o600)
    file.write_bytes(_empty_ledger())
    upgrade_database(settings)


@cache
def _empty_ledger() -> bytes:
    """Return an SQLite file with an empty ledger: the migrations run once, and not for each test."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.sqlite3"
        engine = create_ledger_engine(f"sqlite:///{file}")
        upgrade(engine)
        engine.dispose()
        return file.read_bytes()


def migrate(engine: Engine, revision: str) -> None:
    """Bring the schema to a revision, which may be an older one than this program's."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


@dataclass
class FakeClock:
    """An aware UTC clock that stands still until it is moved."""

    now: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Node:
    """A ledger, its clock, and the steps that a test takes with it."""

    engine: Engine
    clock: FakeClock = field(default_factory=FakeClock)
    policy: Policy = POLICY

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.engine, self.policy, self.clock)

    def instance(self, name: str = "1", study: str = "1.2.3", **changes: Any) -> ReceivedInstance:
        values: dict[str, Any] = {
            "sop_instance_uid": f"1.2.3.{name}",
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1",
            "study_uid": study,
            "series_uid": f"{study}.1",
            "accession": "A1",
            "patient_id": "P1",
            "issuer": "",
            "patient_key": "key of P1",
            "calling_ae": "CR1",
            "called_ae": "PNEUMONIA",
            "peer": "127.0.0.1",
            "transfer_syntax": "1.2.840.10008.1.2.1",
            "sha256": f"{name:0>64}",
            "size": 10,
            "spool_path": f"{name}.dcm",
            "header": b"header",
            "priority": Priority.ROUTINE,
            "received_at": self.clock(),
        }
        return ReceivedInstance(**(values | changes))

    def receive(self, *names: str, **changes: Any) -> None:
        self.ledger.intake.register([self.instance(name, **changes) for name in names])

    def analyse(
        self, outcome: Outcome | None = None, model: ModelIdentity = MODEL, shadow: ModelIdentity | None = None
    ) -> int:
        """Analyse everything that waits, with or without a bundle on trial; return how many images that was."""
        tasks = []
        for task in self.ledger.analyses.claim(owner="w", limit=100):
            if task.in_conflict:
                self.ledger.analyses.compared(task, same=False)
            else:
                tasks.append(task)
        result = outcome or Finding(probability=0.9, logit=2.0, threshold=0.5)
        done = [Analysed(task=task, outcome=result, started_at=self.clock()) for task in tasks]
        return self.ledger.analyses.record(done, model, shadow)

    def try_out(self, *probabilities: float, model: ModelIdentity = SHADOW) -> int:
        """Run the bundle on trial on all that waits for it, 0.5 where none is given; return how many images."""
        values = iter(probabilities)
        tasks = self.ledger.shadow_queue.claim(owner="s", limit=100)
        done = [
            ShadowOutcome(task=task, outcome=Finding(probability=next(values, 0.5), logit=0.0, threshold=0.4))
            for task in tasks
        ]
        return self.ledger.shadow_queue.record(done, model)

    def report(
        self,
        *destinations: str,
        model: ModelIdentity = MODEL,
        build: Callable[[str, StudySnapshot], BuiltReport] | None = None,
        companions: Callable[[StudySnapshot], Sequence[BuiltObject]] | None = None,
        takes: Takes = takes_all,
    ) -> StudySnapshot | None:
        """Report one quiet study, by default with a stand-in for the bytes; None when there was nothing to save.

        What `companions` makes goes with the report.
        """
        self.ledger.upkeep.sweep(model)
        task = self.ledger.reports.claim(owner="w")
        if task is None:
            return None
        snapshot = self.ledger.reports.snapshot(task, model)
        if not isinstance(snapshot, StudySnapshot):
            self.ledger.reports.postpone(task, timedelta(seconds=0.2))
            return None
        built = (build or built_report)(task.study_uid, snapshot)
        follow = companions is not None
        if not self.ledger.reports.save(task, snapshot, built, model, destinations, companions_follow=follow):
            return None
        if companions is not None:
            following = self.ledger.reports.claim_companions(owner="w")
            assert following
            assert self.ledger.reports.save_companions(following, companions(snapshot), takes=takes)
        return snapshot

    def paused_for(self, destination: str) -> float:
        """Return the seconds until the destination is probed, 0: it is not paused."""
        found = self.rows(f"SELECT paused_until FROM destination WHERE name = '{destination}'")  # noqa: S608 - ours
        if not found or found[0][0] is None:
            return 0
        [(until,)] = found
        at = datetime.fromisoformat(until).replace(tzinfo=UTC) if isinstance(until, str) else until
        return max(0.0, (at - self.clock()).total_seconds())

    def audit(self) -> list[dict[str, Any]]:
        """Return what `scp-node audit --format json` prints, as objects."""
        return [row.document() for row in self.ledger.audit.instances(AuditQuery())]

    def rows(self, statement: str) -> list[Any]:
        with self.engine.begin() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]


def built_report(study_uid: str, snapshot: StudySnapshot) -> BuiltReport:
    """Return a report with the identity that its content gives it, as the real builder does."""
    content = "-".join(str(number) for number in snapshot.result_ids) + ("?" if snapshot.incomplete else "")
    content += "".join(f" {use}" for _, use in snapshot.unread) + ("&" if snapshot.patients > 1 else "")
    return BuiltReport(
        study_uid=study_uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        sop_instance_uid=f"2.25.{abs(hash((study_uid, content)))}",
        series_instance_uid="2.25.2",
        content_digest=content,
        file=content.encode(),
    )
