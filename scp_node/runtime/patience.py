"""Waits for a database that is away, so that finished work is not lost because it cannot be recorded now."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from scp_node.ledger import LedgerUnreachableError, blames_values
from scp_node.ledger.database.errors import first_line
from scp_node.logs import get_logger

T = TypeVar("T")

SHORTEST_PAUSE: Final = 0.25  # seconds
LONGEST_PAUSE: Final = 5.0

log = get_logger(__name__)


class Patiently(Protocol):
    """Runs an action that needs the ledger; see `Patience`."""

    def __call__(self, action: Callable[[], T], /) -> T:
        """Return the result of `action`."""


def at_once(action: Callable[[], T], /) -> T:
    """Run the action once; its errors are raised."""
    return action()


class Patience:
    """Repeats an action while the database is away; it must be safe to run the action twice."""

    def __init__(
        self,
        stop: threading.Event,
        *,
        name: str,
        also: tuple[type[Exception], ...] = (),
        renew: Callable[[], None] = lambda: None,
    ) -> None:
        """Wait until `stop` is set; also wait out the errors in `also`. `renew` is called before each try."""
        self._stop = stop
        self._name = name
        self._renew = renew
        self._waited_for: tuple[type[Exception], ...] = (SQLAlchemyError, LedgerUnreachableError, *also)

    def __call__(self, action: Callable[[], T], /) -> T:
        """Return the result of `action` once it succeeds.

        Raises:
            Exception: from `action`, if waiting does not help or `stop` was set meanwhile.
        """
        pause = SHORTEST_PAUSE
        while True:
            self._renew()
            try:
                done = action()
            except self._waited_for as error:
                if blames_values(error) or isinstance(error, IntegrityError):  # not an outage: it would come for ever
                    raise
                self._tell(error, is_first=pause == SHORTEST_PAUSE)
                if self._stop.wait(pause):
                    raise
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if pause != SHORTEST_PAUSE:
                    log.info("database is back", step=self._name)
                return done

    def _tell(self, error: Exception, *, is_first: bool) -> None:
        if isinstance(error, LedgerUnreachableError):  # at a start: a person should check whether this is intended
            level = logging.ERROR if is_first else logging.WARNING
            log.log(level, "database cannot be used, waiting for it", step=self._name, reason=error)
        else:
            log.warning("database is away, will be retried", step=self._name, reason=first_line(error))


def waiting(
    step: Callable[[], bool], stop: threading.Event, *, name: str, renew: Callable[[], None] = lambda: None
) -> Callable[[], bool]:
    """Return a step for `poll` that waits while the database is away, with one log line for each try."""
    patience = Patience(stop, name=name, renew=renew)

    def wait_and_step() -> bool:
        try:
            return patience(step)
        except SQLAlchemyError:
            if stop.is_set():  # claimed work comes back when its lease ends
                return False
            raise

    return wait_and_step
