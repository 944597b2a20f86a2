"""The listener's second thread: enters the spool's files into the ledger.

The spool is the truth, and the ledger follows it. The listener answers a store when the file is safe; this thread
writes the rows soon after, many in one commit. While the database is away it waits. Arrivals that it could not keep in
memory it finds again among the files.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import date, timedelta
from itertools import islice
from typing import Final

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from scp_node.domain import (
    LARGEST_REPORT,
    Clock,
    CommitmentAnswer,
    ReceivedInstance,
    RejectedInstance,
    TransferEnded,
    utc_now,
)
from scp_node.ledger import Duplicate, Ledger, LedgerError, Registration, UnregistrableFile, blames_values
from scp_node.logs import get_logger
from scp_node.loops.backlog import Backlog, Earliest
from scp_node.loops.settlement import settle
from scp_node.runtime.patience import LONGEST_PAUSE, Patience
from scp_node.runtime.repeated import Repeated
from scp_node.spool import Spool, SpoolError, SpoolFileGoneError

log = get_logger(__name__)

BATCH: Final = 64  # instances in one commit: sixteen cost about as much as one
REMEMBERED: Final = 10_000  # instances that wait in memory; more are found again in the spool
REMEMBERED_BYTES: Final = 64 * 2**20  # limit of their headers: a peer decides how long a header is
REFUSALS: Final = 32  # of one address for one reason, each recorded within a minute; then their number
SWEEP_SECONDS: Final = 0.25  # between two looks at what is due or lost its holder, while any work is under way
# Least time from the commit of one image to the next, which is of all that came meanwhile; and after one of several
# images, when many senders are at work.
GATHER_SECONDS: Final = 0.03
GATHER_MANY_SECONDS: Final = 0.1
RESCAN_SECONDS: Final = 300.0
RESCAN_DAYS: Final = timedelta(days=2)  # age of the files that a later scan looks at; the first scan looks at all files
_SCAN_CHUNK: Final = 1_000
_SMALL_BYTES: Final = 512  # approximate size of a refused store

_Arrival = ReceivedInstance | RejectedInstance | TransferEnded | CommitmentAnswer


class Registrar:
    """Takes received and rejected instances from the listener, and never makes it wait."""

    def __init__(
        self,
        ledger: Ledger,
        spool: Spool,
        *,
        clock: Clock = utc_now,
        remembered: int = REMEMBERED,
        remembered_bytes: int = REMEMBERED_BYTES,
        refusals: int = REFUSALS,
        renew: Callable[[], None] = lambda: None,
    ) -> None:
        """Enter the files of `spool` into `ledger`; beyond `remembered` instances, the rest wait in the spool alone.

        At most `refusals` stores that were refused, of one address for one reason, are recorded within a minute.
        `renew` is called again and again while the thread is alive.
        """
        self._ledger = ledger
        self._spool = spool
        self._clock = clock
        self._renew = renew
        self._arrivals: Backlog[_Arrival] = Backlog(remembered, remembered_bytes)
        self._overflowed = threading.Event()
        self._endings: deque[TransferEnded] = deque()  # entered after the instances that came before them
        self._earliest = Earliest()
        self._refusals = Repeated[RejectedInstance](most=refusals)
        self._forgotten = 0  # refused stores since the last log line about them
        self._forgetting = threading.Lock()
        self._given_up: set[str] = set()

    def received(self, instance: ReceivedInstance) -> None:
        """Note an instance whose file is safe; never blocks."""
        self._earliest.add(instance.received_at)
        if not self._arrivals.put(instance, len(instance.header)):
            self._overflowed.set()

    def rejected(self, instance: RejectedInstance) -> None:
        """Note a store that was refused, or count it: a peer does not fill the audit trail. Never blocks."""
        if self._refusals.is_news(instance.peer, instance.reason, instance):
            self._put_rejected(instance)

    def _put_rejected(self, instance: RejectedInstance) -> None:
        if not self._arrivals.put(instance, _SMALL_BYTES):
            with self._forgetting:
                self._forgotten += instance.unsaid or 1

    def _put_numbers(self, *, at_once: bool) -> None:
        for untold in self._refusals.take_untold(at_once=at_once):
            self._put_rejected(replace(untold.last, unsaid=untold.number))

    def committed(self, answer: CommitmentAnswer) -> bool:
        """Note the report of a destination and return whether there was room for it; never blocks."""
        return self._arrivals.put(answer, LARGEST_REPORT)

    def ended(self, ending: TransferEnded) -> None:
        """Note that an association has ended, or that a study counts as sent; never blocks."""
        if not self._arrivals.put(ending, _SMALL_BYTES):
            self._overflowed.set()
            self._endings.append(ending)  # unlike an instance, it has no file to be found by

    def run(self, stop: threading.Event) -> None:
        """Register until `stop` is set and all earlier arrivals are entered, or until the database stays away."""
        if not self._patiently(stop, lambda: self.scan(first=True, stop=stop)):
            return
        next_scan, next_sweep = time.monotonic() + RESCAN_SECONDS, time.monotonic()
        while not self._is_done(stop):
            self._renew()
            batch = self._arrivals.take(BATCH, wait=0.0 if stop.is_set() else self._seconds_until_sweep())
            began = time.monotonic()
            taken = sum(isinstance(arrival, ReceivedInstance) for arrival in batch)
            self._endings.extend(arrival for arrival in batch if isinstance(arrival, TransferEnded))
            if not self._patiently(stop, lambda batch=batch: self._enter(batch)):  # type: ignore[misc]
                return
            if not self._overflowed.is_set() and not self._patiently(stop, self._enter_endings):
                return
            if began >= next_sweep:  # senders and workers may be dying all the time
                next_sweep = began + SWEEP_SECONDS
                if not self._patiently(stop, self._ledger.upkeep.sweep):
                    return
            is_behind = self._overflowed.is_set() and self._arrivals.is_empty()
            if is_behind or time.monotonic() > next_scan:
                self._overflowed.clear()
                self._patiently(stop, lambda: self.scan(stop=stop))
                next_scan = time.monotonic() + RESCAN_SECONDS
            if 0 < taken < BATCH:
                stop.wait(began + (GATHER_SECONDS if taken == 1 else GATHER_MANY_SECONDS) - time.monotonic())

    def end(self) -> None:
        """Have `run`, whose `stop` is set, wait for no more arrivals."""
        self._arrivals.wait_no_more()

    def _seconds_until_sweep(self) -> float:
        return max(SWEEP_SECONDS, self._ledger.upkeep.rest())

    def _is_done(self, stop: threading.Event) -> bool:
        is_ending = stop.is_set()
        self._put_numbers(at_once=is_ending)
        return is_ending and self._arrivals.is_empty()

    def _patiently(self, stop: threading.Event, step: Callable[[], object]) -> bool:
        """Repeat `step` until it succeeds; return False if `stop` was set meanwhile: the files stay.

        Catches everything, as `poll` does: an error that is not an outage is a bug in this program, and must not end
        this thread.
        """
        patience = Patience(stop, name="register", also=(SpoolError, OSError), renew=self._renew)
        while True:
            try:
                patience(step)
            except Exception:
                if not stop.is_set():
                    log.exception("step failed", step="register")
                if stop.wait(LONGEST_PAUSE):
                    return False
            else:
                return True

    def _enter_endings(self) -> None:
        endings = list(self._endings)
        if not self._end(endings):  # one of them triggers a bug: entered one by one, it does not hold up the others
            for ending in endings:
                self._end([ending])
        for _ in endings:
            self._endings.popleft()

    def _end(self, endings: Sequence[TransferEnded]) -> bool:
        bug = _bug_in(lambda: self._ledger.studies.transfers_ended(endings)) if endings else None
        if bug:
            log.error("ends of associations cannot be entered", count=len(endings), exc_info=bug)
        return bug is None

    def _enter(self, batch: list[_Arrival]) -> None:
        """Enter a batch and take each entered arrival out of it, so that the next try begins where this one ended."""
        self._register([arrival for arrival in batch if isinstance(arrival, ReceivedInstance)])
        batch[:] = [arrival for arrival in batch if not isinstance(arrival, ReceivedInstance)]
        while batch:
            self._note(batch[0])
            batch.pop(0)
        with self._forgetting:
            forgotten, self._forgotten = self._forgotten, 0
        if forgotten:
            log.error("refused stores were not recorded, too many waited for the database", count=forgotten)

    def _note(self, arrival: _Arrival) -> None:
        if bug := _bug_in(lambda: self._record(arrival)):
            log.error("what a peer sent cannot be recorded", kind=type(arrival).__name__, exc_info=bug)

    def _record(self, arrival: _Arrival) -> None:
        if isinstance(arrival, RejectedInstance):
            self._ledger.intake.record_rejected(arrival)
        elif isinstance(arrival, CommitmentAnswer):
            settle(self._ledger, arrival.report, arrival.destinations)

    def _register(self, received: Sequence[ReceivedInstance]) -> int:
        """Enter these instances and return the number that have a row now.

        An instance that the database refuses, or that triggers a bug in this program, does not hold up the others. An
        error that waiting may help is raised.
        """
        if not received:
            return 0
        # A file may come twice, from the first scan and from its association: by then a duplicate is removed.
        gone = {each.spool_path for each in received if not self._spool.holds(each.spool_path)}
        registrations: list[Registration] = []
        error: Exception | None
        try:
            error = _bug_in(lambda: registrations.append(self._ledger.intake.register(received, gone=gone)))
        except IntegrityError as violation:
            error = violation
        if error and len(received) > 1:
            return sum(self._register([instance]) for instance in received)
        if error:
            return self._register_or_give_up(received[0], error)
        [registration] = registrations
        for duplicate in registration.duplicates:
            self._remove(duplicate)
        for uid in registration.conflicts:
            log.warning("instance has the UID of an earlier one and other bytes", sop_instance_uid=uid)
        for uid in registration.several_patients:
            log.error("study names several patients, each gets a report of its own", study_uid=uid)
        return len(received)

    def scan(self, *, first: bool = False, stop: threading.Event | None = None) -> int:
        """Register the files without a row until `stop` is set, and return their number.

        Files lie in folders by day of the wall clock, which may have been set since. So the recent days begin at the
        earliest day in which anything was written since the last scan.
        """
        earliest = self._earliest.take(self._clock())
        with ExitStack() as unfinished:
            unfinished.callback(self._earliest.add, earliest)  # the next scan begins there again
            found = self._scan(None if first else (earliest - RESCAN_DAYS).date(), stop)
            unfinished.pop_all()
        if found:
            log.info("registered files without a row", count=found)
        return found

    def _scan(self, since: date | None, stop: threading.Event | None) -> int:
        found = 0
        for chunk in _chunks(self._spool.paths(since), _SCAN_CHUNK):
            missing = self._ledger.intake.unregistered(chunk)
            for paths in _chunks(iter(missing), BATCH):
                if stop is not None and stop.is_set():
                    return found
                self._renew()
                found += self._register([instance for path in paths if (instance := self._read(path))])
        return found

    def _register_or_give_up(self, instance: ReceivedInstance, error: Exception) -> int:
        path = instance.spool_path
        if isinstance(error, IntegrityError) and not self._ledger.intake.unregistered([path]):
            return 1  # it has a row already: the error was about a second row
        if isinstance(error, IntegrityError) or blames_values(error):
            blamed = "the database refuses it"
        else:
            blamed = "this program fails on it"
            log.error("instance cannot be registered", path=path, exc_info=error)
        cause = getattr(error, "orig", None) or error
        self._give_up(
            UnregistrableFile(
                spool_path=path,
                reason=f"{blamed}: {type(cause).__name__}",
                sha256=instance.sha256,
                received_at=instance.received_at,
                sop_instance_uid=instance.sop_instance_uid,
                study_uid=instance.study_uid,
                calling_ae=instance.calling_ae,
                peer=instance.peer,
            )
        )
        return 0

    def _remove(self, duplicate: Duplicate) -> None:
        """Remove a file that the ledger has already, or let it replace the file that the row names if that is lost."""
        if not duplicate.original_kept or self._spool.holds(duplicate.original_path):
            try:
                self._spool.remove(duplicate.spool_path)
            except SpoolError as error:  # a later scan finds it again
                log.warning("duplicate not removed", reason=error)
        elif self._ledger.intake.adopt(duplicate):
            log.error("original was lost, its duplicate takes its place", path=duplicate.original_path)
        # else another duplicate has taken its place, or it is being purged: the next scan finds this file without a row

    def _read(self, path: str) -> ReceivedInstance | None:
        try:
            return self._spool.read(path)
        except SpoolFileGoneError:  # a duplicate, removed since it was listed
            return None
        except SpoolError as error:
            digest, received_at = self._spool.digest(path), self._spool.received_at(path)
            reason = str(error).removeprefix(f"{path}: ")
            self._give_up(UnregistrableFile(spool_path=path, reason=reason, sha256=digest, received_at=received_at))
            return None

    def _give_up(self, file: UnregistrableFile) -> None:
        """Record a file that cannot be registered as an event, once; each scan tries it again."""
        if file.spool_path in self._given_up:
            return
        if self._ledger.intake.record_unregistrable(file):
            log.error("file cannot be registered, stays in the spool", path=file.spool_path, reason=file.reason)
        self._given_up.add(file.spool_path)


def _bug_in(step: Callable[[], object]) -> Exception | None:
    """Do a step and return the error that shows a bug in this program, or None.

    Raises:
        Exception: a fault of the database or the machine, which waiting may help.
    """
    try:
        step()
    except Exception as error:
        if _waiting_may_help(error):
            raise
        return error
    return None


def _waiting_may_help(error: Exception) -> bool:
    """Return whether waiting may help: a fault of the database or the machine, rather than a bug in this program.

    It may help for an `IntegrityError`: only a query can say what such an error means.
    """
    of_surroundings = (SQLAlchemyError, LedgerError, SpoolError, OSError, MemoryError)
    return isinstance(error, of_surroundings) and not blames_values(error)


def _chunks(paths: Iterator[str], size: int) -> Iterator[list[str]]:
    while chunk := list(islice(paths, size)):
        yield chunk
