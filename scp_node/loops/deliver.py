"""The sender's loop, one for each destination: delivers what waits, and leaves a destination that is down alone.

Each failure belongs to the object or to the destination. A failure of the object spends one of its tries, and only it
has to wait. A failure of the destination spends nothing; after a few in a row the destination is paused. A destination
that is busy (0xA7xx) or does not answer on an open association may be either: see `Sender._blame`, and
docs/decisions/0014. While much waits, further associations send beside the first, which alone judges.
"""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final, Protocol

from scp_node.delivery import Disposition, SendResult, pause_before
from scp_node.ledger import REPORT_KIND, DeliveryTask, DestinationState, Ledger
from scp_node.logs import get_logger
from scp_node.loops.associations import Associations
from scp_node.runtime.leases import LeaseKeeper
from scp_node.runtime.patience import Patiently, at_once
from scp_node.settings import DeliverySettings

log = get_logger(__name__)

_NOT_TAKEN: Final = frozenset({Disposition.BUSY, Disposition.UNANSWERED, Disposition.UNREACHABLE})
_AN_INSTANT: Final = timedelta(microseconds=1)  # the resolution of the ledger's times
_OPEN_SECONDS: Final = 1.0  # for a further association; who takes one at a time may leave it without an answer


class Blame(Enum):
    """Whose failure it is that an object was not delivered."""

    OBJECT = auto()  # it spends a try, and nothing else waits
    DESTINATION = auto()  # it spends nothing, and a few of them pause the destination
    BOTH = auto()  # nobody knows: it spends a try, and counts for the destination


class Scu(Protocol):
    """One destination, as the sender sees it; see `scp_node.delivery.StorageScu`."""

    def send(self, file: bytes) -> SendResult:
        """Send one report; never raises for network reasons."""

    def open(self, *, seconds: float) -> str:
        """Open the association if there is none; return why it is not open, "" where it is."""

    def echo(self) -> bool:
        """Return whether the destination answers a C-ECHO."""

    def close_if_idle(self) -> None:
        """Release the association if it has been idle for a while."""

    def close(self) -> None:
        """Release the association."""


class Sender:
    """Delivers reports to one destination, one a step."""

    def __init__(
        self,
        *,
        name: str,
        scu: Scu,
        ledger: Ledger,
        leases: LeaseKeeper,
        settings: DeliverySettings,
        owner: str,
        randomness: random.Random | None = None,
        check_after: timedelta | None = None,
        patiently: Patiently = at_once,
        associations: Associations | None = None,
    ) -> None:
        """Send what waits for the destination `name` through `scu`, and have it asked for that after `check_after`.

        `associations` is the one value that all senders of the destination share.
        """
        self._patiently = patiently
        self._associations = associations or Associations(name, pause=settings.probe_seconds)
        self._name = name
        self._scu = scu
        self._ledger = ledger
        self._leases = leases
        self._settings = settings
        self._owner = owner
        self._check_after = check_after
        self._at_fault: set[int] = set()  # deliveries that the destination refused while it took others
        self._was_unreachable = False  # at the last try; the waiting objects are not to blame for that
        self._random = randomness or random.Random()  # noqa: S311 - spreads retries, guards nothing

    def step(self) -> bool:
        """Send one report, or probe a destination that was down; return whether there was something to do."""
        state = self._ledger.deliveries.destination(self._name)
        if state.paused:
            return state.probe_due and self._probe(state)
        self._ledger.upkeep.sweep()
        task = self._ledger.deliveries.claim(self._name, owner=self._owner)
        if task is None:
            self._scu.close_if_idle()
            return False
        with self._leases.hold([task.claim]):
            with self._associations.in_use() as use:
                result = self._scu.send(task.file)
            if result.disposition in _NOT_TAKEN and not use.was_alone:
                self._associations.keep_to_one(result.detail)
            # unnoted, it would be sent again
            blame = self._patiently(lambda: self._conclude(task, result, state, was_alone=use.was_alone))
        self._judge(result, blame, state)
        return True

    def _probe(self, state: DestinationState) -> bool:
        """Ask a paused destination for a C-ECHO; return whether a report may be tried."""
        if self._scu.echo():
            self._ledger.deliveries.destination_on_trial(self._name, hasten=self._was_unreachable)
            return True
        self._was_unreachable = True
        self._give_up_what_is_old(state)
        self._destination_failed(state.detail)
        return False

    def _give_up_what_is_old(self, state: DestinationState) -> None:
        """Make dead letters of objects that have waited for too long: nothing else does so during a pause."""
        oldest, detail = self._longest(), f"waited too long: {state.detail}"
        while buried := self._ledger.deliveries.give_up(self._name, older_than=oldest, detail=detail):
            for uid in buried:
                self._log_dead(uid, "none", detail)

    def _conclude(self, task: DeliveryTask, result: SendResult, state: DestinationState, *, was_alone: bool) -> Blame:
        """Note the result for the object, and return whose failure it is, if it is one."""
        uid, status = task.sop_instance_uid, "none" if result.status is None else f"0x{result.status:04X}"
        if result.disposition is Disposition.DELIVERED:
            self._ledger.deliveries.delivered(
                task,
                status=result.status or 0,
                sop_class_uid=result.sop_class_uid,
                remark=result.detail,
                check_after=self._check_after,
            )
            self._log_delivered(uid, status, result.detail)
            self._at_fault.discard(task.delivery_id)
            return Blame.OBJECT
        blame = self._blame(task, result, was_alone=was_alone)
        if self._is_dead(task, result, blame):
            self._ledger.deliveries.bury(task, status=result.status, detail=result.detail)
            self._log_dead(uid, status, result.detail)
            self._at_fault.discard(task.delivery_id)
            return blame
        spent = blame is not Blame.DESTINATION
        pause = self._pause(task.claim.attempt if spent else state.failures + 1)
        self._ledger.deliveries.retry(
            task, status=result.status, detail=result.detail, pause=pause, keep_attempt=not spent
        )
        log.warning(
            "report not delivered, will be retried",
            report_uid=uid,
            destination=self._name,
            status=status,
            reason=result.detail,
        )
        return blame

    def _blame(self, task: DeliveryTask, result: SendResult, *, was_alone: bool) -> Blame:
        """Return whose failure it is.

        Where the destination took something else between two tries of an object, it is the object's. What goes with a
        report is sent behind it: where the destination took anything since both began to wait, it takes no such object.
        A try beside which another association was in use says nothing of the object: that one may have been in its way.
        """
        if result.disposition not in _NOT_TAKEN:
            return Blame.OBJECT
        if result.disposition is Disposition.UNREACHABLE or not was_alone:
            return Blame.DESTINATION
        if task.kind == REPORT_KIND:
            was_tried = task.tried_at is not None and task.tried_at >= task.opened_at  # not before it was put back
            since = task.tried_at if was_tried else None
        else:
            since = task.opened_at - _AN_INSTANT  # its report may have been taken at once
        if task.delivery_id in self._at_fault or (since is not None and self._took_since(since)):
            self._at_fault.add(task.delivery_id)
            return Blame.OBJECT
        if result.disposition is Disposition.UNANSWERED and self._took_since(task.tried_at or task.opened_at):
            return Blame.BOTH
        return Blame.DESTINATION

    def _is_dead(self, task: DeliveryTask, result: SendResult, blame: Blame) -> bool:
        limits = {
            Disposition.PERMANENT: self._settings.permanent_attempts,
            Disposition.UNANSWERED: self._settings.unanswered_attempts,
        }
        is_spent = blame is not Blame.DESTINATION and task.claim.attempt >= limits.get(result.disposition, math.inf)
        # a destination that answers nobody at present has not refused this object for good
        may_be_down = result.disposition is Disposition.UNANSWERED
        if is_spent and (not may_be_down or self._took_since(task.tried_at or task.opened_at)):
            return True
        return self._ledger.deliveries.waited(task) > self._longest()

    def _took_since(self, instant: datetime) -> bool:
        return self._ledger.deliveries.took_since(self._name, instant)

    def _judge(self, result: SendResult, blame: Blame, state: DestinationState) -> None:
        """Note the result for the destination."""
        self._was_unreachable = result.disposition is Disposition.UNREACHABLE
        if result.disposition in _NOT_TAKEN:
            if blame is not Blame.OBJECT:
                self._destination_failed(result.detail)
        elif state.failures:
            is_back = self._ledger.deliveries.destination_answered(self._name, enough=self._settings.breaker_failures)
            if is_back:  # a warning, so that it reaches the same readers as the report of the pause
                log.warning("destination is back", destination=self._name)

    def _destination_failed(self, detail: str) -> None:
        is_news = self._ledger.deliveries.destination_failed(
            self._name, detail=detail, enough=self._settings.breaker_failures, pause=self._pause_of_destination
        )
        if is_news:
            log.error("destination paused", destination=self._name, reason=detail)

    def _log_delivered(self, uid: str, status: str, remark: str) -> None:
        if remark:
            log.warning(
                "report delivered with a remark", report_uid=uid, destination=self._name, status=status, remark=remark
            )
        else:
            log.info("report delivered", report_uid=uid, destination=self._name, status=status)

    def _log_dead(self, uid: str, status: str, detail: str) -> None:
        log.error(
            "report not delivered, given up", report_uid=uid, destination=self._name, status=status, reason=detail
        )

    def _longest(self) -> timedelta:
        return timedelta(hours=self._settings.retry_for_hours)

    def _pause(self, attempt: int) -> timedelta:
        return self._random_pause(attempt, cap=self._settings.retry_cap_seconds)

    def _pause_of_destination(self, attempt: int) -> timedelta:
        return self._random_pause(attempt, cap=self._settings.probe_seconds)

    def _random_pause(self, attempt: int, *, cap: float) -> timedelta:
        first = timedelta(seconds=self._settings.retry_first_seconds)
        return pause_before(attempt, first=first, cap=timedelta(seconds=cap), random=self._random)


class FurtherSender(Sender):
    """Delivers to the same destination over one more association, while the first is in use and more waits.

    What the destination does not take here goes back to its queue: the first sender finds out whose failure it is.
    """

    _is_open = False

    def step(self) -> bool:
        """Send one report beside the first sender; return whether there was something to do."""
        state = self._ledger.deliveries.destination(self._name)
        is_wanted = self._associations.may_be_more() or (self._is_open and not self._associations.is_one)
        if state.failures or state.paused or not is_wanted:
            self._close()
            return False
        if why := self._scu.open(seconds=_OPEN_SECONDS):
            self._associations.keep_to_one(why)
            return False
        self._is_open = True
        task = self._ledger.deliveries.claim(self._name, owner=self._owner)
        if task is None:
            self._close()  # who takes one association at a time waits for this one to end
            return False
        with self._leases.hold([task.claim]):
            with self._associations.in_use():
                result = self._scu.send(task.file)
            self._patiently(lambda: self._note(task, result, state))
        return True

    def _close(self) -> None:
        self._scu.close()
        self._is_open = False

    def _note(self, task: DeliveryTask, result: SendResult, state: DestinationState) -> None:
        if result.disposition in _NOT_TAKEN:
            self._associations.keep_to_one(result.detail)
            self._ledger.deliveries.put_back(task)
        else:
            self._conclude(task, result, state, was_alone=False)
