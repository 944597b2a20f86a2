"""The listener's second thread: enters into the ledger what the spool holds.

The spool is the truth and the ledger follows it. A store is answered when its file is safe; this thread writes the
rows soon after, many in one commit. While the database is away it waits, and what it could not keep in memory it finds
again among the files.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from itertools import islice

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from scp_node.domain import Clock, ReceivedInstance, TransferEnded, utc_now
from scp_node.ledger import Duplicate, Ledger
from scp_node.listener import CommitmentAnswer, RejectedInstance
from scp_node.settlement import settle
from scp_node.spool import Spool, SpoolError

log = logging.getLogger(__name__)

BATCH = 64  # instances in one commit: sixteen cost about what one costs
REMEMBERED = 10_000  # instances that wait in memory; more are found again in the spool
RESCAN_SECONDS = 300.0
RESCAN_DAYS = timedelta(days=2)  # later scans look at recent files; the first one at all that are there
LONGEST_PAUSE = 15.0  # seconds between two tries while the database is away
_SCAN_CHUNK = 1_000

_Arrival = ReceivedInstance | RejectedInstance | TransferEnded | CommitmentAnswer


class Registrar:
    """Takes received and rejected instances from the listener, without ever making it wait."""

    def __init__(self, ledger: Ledger, spool: Spool, *, clock: Clock = utc_now) -> None:
        """Enter what `spool` holds into `ledger`."""
        self._ledger = ledger
        self._spool = spool
        self._clock = clock
        self._arrivals: queue.Queue[_Arrival] = queue.Queue(REMEMBERED)
        self._overflowed = threading.Event()
        self._endings: deque[TransferEnded] = deque()  # entered after the instances that came before them
        self._earliest = Earliest()
        self._unreadable: set[str] = set()

    def received(self, instance: ReceivedInstance) -> None:
        """Note an instance whose file is safe; never blocks."""
        self._earliest.add(instance.received_at)
        self._remember(instance)

    def rejected(self, instance: RejectedInstance) -> None:
        """Note a store that was refused; never blocks."""
        self._remember(instance)

    def committed(self, answer: CommitmentAnswer) -> bool:
        """Note what a destination reports, and return whether it could be noted; never blocks."""
        try:
            self._arrivals.put_nowait(answer)
        except queue.Full:
            return False
        return True

    def ended(self, ending: TransferEnded) -> None:
        """Note that an association is over, or that a study counts as sent; never blocks."""
        self._remember(ending)

    def _remember(self, arrival: ReceivedInstance | RejectedInstance | TransferEnded) -> None:
        try:
            self._arrivals.put_nowait(arrival)
        except queue.Full:
            self._overflowed.set()
            if isinstance(arrival, TransferEnded):  # no file says so
                self._endings.append(arrival)

    def run(self, stop: threading.Event) -> None:
        """Register until `stop` is set and everything that arrived before is entered, or the database stays away."""
        self._patiently(stop, lambda: self.scan(first=True))
        next_scan = time.monotonic() + RESCAN_SECONDS
        while not (stop.is_set() and self._arrivals.empty()):
            batch = self._next_batch(wait=0.0 if stop.is_set() else 0.25)
            self._endings.extend(arrival for arrival in batch if isinstance(arrival, TransferEnded))
            if batch and not self._patiently(stop, lambda batch=batch: self._enter(batch)):  # type: ignore[misc]
                return
            if not self._overflowed.is_set() and not self._patiently(stop, self._enter_endings):
                return
            if self._overflowed.is_set() or time.monotonic() > next_scan:
                self._overflowed.clear()
                self._patiently(stop, self.scan)
                next_scan = time.monotonic() + RESCAN_SECONDS

    def _patiently(self, stop: threading.Event, step: Callable[[], object]) -> bool:
        """Repeat `step` while the database is away; False when told to stop meanwhile: the files stay."""
        pause = 0.25
        while True:
            try:
                step()
            except (SQLAlchemyError, SpoolError, OSError) as error:
                log.warning("registration delayed error=%s", type(error).__name__)
                if stop.wait(pause):
                    return False
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                return True

    def _next_batch(self, *, wait: float) -> list[_Arrival]:
        batch: list[_Arrival] = []
        try:
            batch.append(self._arrivals.get(timeout=wait) if wait else self._arrivals.get_nowait())
            while len(batch) < BATCH:
                batch.append(self._arrivals.get_nowait())
        except queue.Empty:  # that is all there is
            pass
        return batch

    def _enter_endings(self) -> None:
        endings = list(self._endings)
        if endings:
            self._ledger.studies.transfers_ended(endings)
        for _ in endings:
            self._endings.popleft()

    def _enter(self, batch: list[_Arrival]) -> None:
        self._register([arrival for arrival in batch if isinstance(arrival, ReceivedInstance)])
        for arrival in batch:
            if isinstance(arrival, RejectedInstance):
                self._ledger.intake.record_rejected(
                    sop_instance_uid=arrival.sop_instance_uid, calling_ae=arrival.calling_ae, peer=arrival.peer,
                    status=arrival.status, reason=arrival.reason, at=arrival.at,
                )  # fmt: skip
            elif isinstance(arrival, CommitmentAnswer):
                settle(self._ledger, arrival.report, arrival.destinations)

    def _register(self, received: list[ReceivedInstance]) -> None:
        """Enter these instances; one that the database cannot take does not hold up the others."""
        if not received:
            return
        try:
            registration = self._ledger.intake.register(received)
        except OperationalError:
            raise
        except SQLAlchemyError as error:
            if len(received) == 1:
                self._give_up(received[0].spool_path, type(error).__name__)
                return
            for instance in received:
                self._register([instance])
            return
        for duplicate in registration.duplicates:
            self._remove(duplicate)
        for uid in registration.conflicts:
            log.error("instance conflicts with an earlier one of the same UID sop_instance_uid=%s", uid)

    def _remove(self, duplicate: Duplicate) -> None:
        """Remove a file that the ledger has already, unless the one that its row names is lost: then this one is it."""
        if not duplicate.original_kept or self._spool.holds(duplicate.original_path):
            self._spool.remove(duplicate.spool_path)
        elif self._ledger.intake.adopt(duplicate):
            log.error("original was lost, its duplicate takes its place path=%s", duplicate.original_path)
        # else another duplicate has taken it, or it is being purged: the next scan finds this file without a row

    def scan(self, *, first: bool = False) -> int:
        """Register files that have no row, and return how many that were.

        Files lie by days of the wall clock. It may have been set since they were written, so what counts as recent is
        the earliest day in which anything was written since the last scan.
        """
        earliest = self._earliest.take(self._clock())
        try:
            found = self._scan(None if first else (earliest - RESCAN_DAYS).date())
        except Exception:
            self._earliest.add(earliest)
            raise
        if found:
            log.info("registered files without a row count=%d", found)
        return found

    def _scan(self, since: date | None) -> int:
        found = 0
        for chunk in _chunks(self._spool.paths(since)):
            missing = [path for path in self._ledger.intake.unregistered(chunk) if path not in self._unreadable]
            for start in range(0, len(missing), BATCH):
                instances = [self._read(path) for path in missing[start : start + BATCH]]
                self._register([instance for instance in instances if instance])
            found += len(missing)
        return found

    def _read(self, path: str) -> ReceivedInstance | None:
        try:
            return self._spool.read(path)
        except SpoolError as error:
            self._give_up(path, str(error))
            return None

    def _give_up(self, path: str, why: str) -> None:
        self._unreadable.add(path)
        log.error("file cannot be registered, it stays in the spool path=%s reason=%s", path, why)


class Earliest:
    """The earliest instant since it was last asked; for many threads."""

    def __init__(self) -> None:
        """Know of none."""
        self._lock = threading.Lock()
        self._instant: datetime | None = None

    def add(self, instant: datetime) -> None:
        """Note an instant."""
        with self._lock:
            self._instant = min(self._instant or instant, instant)

    def take(self, now: datetime) -> datetime:
        """Return the earliest instant, `now` among them, and begin anew with `now`."""
        with self._lock:
            earliest, self._instant = min(self._instant or now, now), now
        return earliest


def _chunks(paths: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(paths, _SCAN_CHUNK)):
        yield chunk
