"""The listener's process: the Storage SCP, and the threads that enter its arrivals into the ledger."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from sqlalchemy import Engine

from scp_node.ledger import Ledger, LedgerError
from scp_node.listener import Listener, ListenError
from scp_node.loops.purge import LONGEST_PAUSE, Purger
from scp_node.loops.register import REFUSALS, REMEMBERED, REMEMBERED_BYTES, Registrar
from scp_node.opening import await_schema, open_engine, open_spool
from scp_node.roles.common import (
    STEP_SECONDS,
    STOP_GRACE_SECONDS,
    UPGRADE_SECONDS,
    ledger_of_role,
    open_bells,
    owner_named,
)
from scp_node.roles.presence import announced
from scp_node.runtime.heartbeat import Heartbeat
from scp_node.runtime.patience import waiting
from scp_node.runtime.polling import have_ended, poll
from scp_node.runtime.renewal import watch_files
from scp_node.settings import Settings

_PORT_PATIENCE_SECONDS: Final = 10.0
_LAST_TRY_SECONDS: Final = 8.0  # longest delay of the end by a database that does not answer


def run_listener(settings: Settings, stop: threading.Event, heart: Heartbeat, *, renew: threading.Event) -> int:
    """Accept associations until `stop` is set; return the exit status of the role.

    When `renew` is set, the files of the certificate are looked at.

    Raises:
        SettingsError: the certificate of [listen.tls] or its key cannot be used.
        ListenError: the port cannot be opened.
        LedgerError: the schema of the database is not this program's.
    """
    spool = open_spool(settings)
    spool.sweep()
    engine = open_engine(settings)
    bells = open_bells(settings)
    # does not connect yet: Success does not need the database
    ledger = ledger_of_role(engine, settings, bells)
    processes = settings.listen.processes  # each has its part of what they may hold and record
    registrar = Registrar(
        ledger,
        spool,
        remembered=REMEMBERED // processes,
        remembered_bytes=REMEMBERED_BYTES // processes,
        refusals=REFUSALS // processes,
        renew=heart.loop("register", STEP_SECONDS).renew,
    )
    listener = Listener(
        settings,
        spool,
        on_received=registrar.received,
        on_rejected=registrar.rejected,
        on_ended=registrar.ended,
        on_commitment=registrar.committed if any(entry.commitment for entry in settings.destinations) else None,
        renew=heart.loop("listen", STEP_SECONDS).renew,
    )
    _start_patiently(listener, stop)
    watch_files(listener.renew_certificate, stop, renew)
    purger = Purger(ledger=ledger, spool=spool, days=settings.retention.days)
    purge = partial(poll, waiting(purger.step, stop, name="purge"), stop, name="purge", longest_pause=LONGEST_PAUSE)
    followers = _Followers(settings, engine, ledger, registrar, purge=purge, heart=heart)
    followers.start(stop)
    stop.wait()
    listener.stop(STOP_GRACE_SECONDS)
    if followers.end():
        ledger.close()
        bells.close()
    return 0


class _Followers:
    """The threads beside the listener that need the database; they begin once it is usable."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        ledger: Ledger,
        registrar: Registrar,
        *,
        purge: Callable[[], object],
        heart: Heartbeat,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._ledger = ledger
        self._registrar = registrar
        self._purge = purge
        self._heart = heart
        self._over = threading.Event()
        self._refused: LedgerError | None = None
        self._threads: list[threading.Thread] = []

    def start(self, stop: threading.Event) -> None:
        """Wait for the database beside the listener; set `stop` if its schema does not fit."""
        self._begin("register", lambda: self._await_and_register(stop))

    def end(self) -> bool:
        """Enter the remaining arrivals, and return whether all threads have left the database.

        Raises:
            LedgerError: the schema did not fit.
        """
        self._over.set()
        self._registrar.end()
        ended = have_ended(self._threads, _LAST_TRY_SECONDS)
        if self._refused:
            raise self._refused
        return ended

    def _await_and_register(self, stop: threading.Event) -> None:
        data_dir, may_upgrade = self._settings.node.data_dir, self._settings.database.upgrade_at_start
        try:
            if not await_schema(self._engine, data_dir, self._over, may_upgrade=may_upgrade, renew=self._renew):
                return
        except LedgerError as error:  # the role ends, as it would have ended at the start
            self._refused = error
            stop.set()
            return
        self._heart.working()  # only now: until here the role may refuse to start, which stops the node
        self._begin("purge", self._purge)
        with announced(self._ledger, owner_named("listener")):
            self._registrar.run(self._over)

    def _renew(self) -> None:
        self._heart.still_starting(UPGRADE_SECONDS)

    def _begin(self, name: str, run: Callable[[], object]) -> None:
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()


def _start_patiently(listener: Listener, stop: threading.Event) -> None:
    """Open the port; after a kill, the process that had it may need a moment to end.

    Raises:
        ListenError: the port stays taken.
    """
    deadline = time.monotonic() + _PORT_PATIENCE_SECONDS
    while True:
        try:
            listener.start()
        except ListenError:
            if time.monotonic() > deadline or stop.wait(0.2):
                raise
        else:
            return
