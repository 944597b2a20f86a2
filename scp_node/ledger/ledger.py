"""The ledger as the roles of the node use it.

Each method of its parts is one transaction. A step that closes its work also writes what it made and opens the next
step in the same transaction, so that a crash leaves all of it or nothing.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sqlalchemy import Engine

from scp_node.domain import Clock
from scp_node.ledger.analyses import Analyses
from scp_node.ledger.audit import Audit
from scp_node.ledger.backup import backup_ledger
from scp_node.ledger.clock import WallClock
from scp_node.ledger.commitments import Commitments
from scp_node.ledger.copying import Copied, copy_ledger
from scp_node.ledger.daily import Daily
from scp_node.ledger.database.errors import AWAY
from scp_node.ledger.deliveries import Deliveries
from scp_node.ledger.entrance import Entrance
from scp_node.ledger.feedback import Feedback
from scp_node.ledger.figures import Figures
from scp_node.ledger.intake import Intake
from scp_node.ledger.people import People
from scp_node.ledger.problems import Problems
from scp_node.ledger.processes import Processes
from scp_node.ledger.projection import Describe
from scp_node.ledger.projector import Projector
from scp_node.ledger.reading_sample import ReadingSample
from scp_node.ledger.reanalysis import Reanalysis
from scp_node.ledger.reports import Reports
from scp_node.ledger.resending import Resending
from scp_node.ledger.resolution import Resolution
from scp_node.ledger.retention import Retention
from scp_node.ledger.shadow import Shadow
from scp_node.ledger.shadow_queue import ShadowQueue
from scp_node.ledger.studies import Studies
from scp_node.ledger.study_page import StudyPages
from scp_node.ledger.trail.chain import BrokenChainError
from scp_node.ledger.trail.events import seals_at_once
from scp_node.ledger.trail.feed import Feed
from scp_node.ledger.trail.journal import Journal
from scp_node.ledger.trail.sealer import Sealer, seal_all
from scp_node.ledger.transactions import Policy, Ring, Transactions, ring_nobody
from scp_node.ledger.upkeep import Upkeep
from scp_node.ledger.verification import Verification, Verifier
from scp_node.ledger.visits import Visits
from scp_node.ledger.watch import Watch
from scp_node.ledger.worklist import Worklist


class Ledger:
    """The ledger of one node, or of many that share a database."""

    def __init__(
        self,
        engine: Engine,
        policy: Policy,
        clock: Clock | None = None,
        *,
        wall_clock: WallClock | None = None,
        ring: Ring = ring_nobody,
        sweep_rest_seconds: float = 0.0,
    ) -> None:
        """Use `clock` as it is, or else `wall_clock`, by default the one that all hosts of this database share.

        `ring` tells those who wait for work of a queue; see `Transactions`. For `sweep_rest_seconds` see `Upkeep`.
        """
        self._engine = engine
        self._transactions = transactions = Transactions(engine, clock, wall_clock=wall_clock, ring=ring)
        self.intake = Intake(transactions, policy)
        self.studies = Studies(transactions, policy)
        self.analyses = Analyses(transactions, policy)
        self.reports = Reports(transactions, policy)
        self.deliveries = Deliveries(transactions, policy)
        self.commitments = Commitments(transactions, policy)
        watch = None if clock else Watch(policy.lease)
        self.upkeep = Upkeep(transactions, policy, watch, rest_seconds=sweep_rest_seconds)
        self.retention = Retention(transactions)
        self.reanalysis = Reanalysis(transactions)
        self.resolution = Resolution(transactions, policy)
        self.shadow_queue = ShadowQueue(transactions, policy)
        self.shadow = Shadow(transactions)
        self.processes = Processes(transactions)
        self.feedback = Feedback(transactions)
        self.reading_sample = ReadingSample(transactions)
        self.people = People(transactions)
        self.entrance = Entrance(transactions)
        self.journal = Journal(transactions)
        self.feed = Feed(transactions)
        self.visits = Visits(transactions)
        self.problems = Problems(transactions)
        self.figures = Figures(transactions)
        self.audit = Audit(transactions)
        self.study_pages = StudyPages(transactions)
        self.resending = Resending(transactions, policy)
        self.verifier = Verifier(transactions)
        self.worklist = Worklist(transactions)
        self.daily = Daily(transactions)

    def projector(self, describe: Describe, *, owner: str, rest_seconds: float = 0.0) -> Projector:
        """Return what keeps `worklist` and `daily` up to date, one of many that may run; see `Projector`."""
        return Projector(self._transactions, describe, owner=owner, rest_seconds=rest_seconds)

    def sealer(self, *, owner: str) -> Sealer:
        """Return what gives events their place in the chain, one of many that may run; see `Sealer`."""
        return Sealer(self._transactions, owner=owner)

    @property
    def seals_at_once(self) -> bool:
        """Whether events have their place in the chain as soon as they are written, so that no sealer has work."""
        return seals_at_once(self._engine.dialect)

    def seal(self) -> None:
        """Give every event that waits its place in the chain.

        Raises:
            BrokenChainError: the row that says where the chain ends is gone, or an event cannot be read.
        """
        seal_all(self._transactions)

    def copy_to(self, target: Engine) -> Copied:
        """Copy the whole ledger into an empty database; see `copy_ledger`."""
        return copy_ledger(self._engine, target)

    def backup(self, file: Path, *, overwrite: bool = False) -> Verification:
        """Copy an SQLite database to a file; see `backup_ledger`."""
        return backup_ledger(self._engine, file, overwrite=overwrite)

    def close(self) -> None:
        """Close the connections of the pool; first seal what waits, if an event was written here.

        So a command leaves a chain that is whole, and so does the last role of a node that stops.
        """
        if self._transactions.has_recorded:
            with suppress(*AWAY, BrokenChainError):  # the next sealer goes on; `audit verify` says what is broken
                self.seal()
        self._engine.dispose()
