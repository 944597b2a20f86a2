"""The parts that all roles share."""

from __future__ import annotations

import os
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine

from scp_node.ledger import Ledger, QueueKind
from scp_node.opening import await_schema, open_engine, policy_of
from scp_node.runtime.bells import Bell, Bells
from scp_node.runtime.heartbeat import Heartbeat, Progress
from scp_node.runtime.patience import waiting
from scp_node.runtime.polling import LONGEST_PAUSE, have_ended, poll
from scp_node.settings import InferenceSettings, Settings

if TYPE_CHECKING:
    from scp_node.inference.served_model import ServedModel

STOP_GRACE_SECONDS: Final = 20.0
STEP_SECONDS: Final = 120.0  # for a step with a slow database, without the stages that have their own limit
UPGRADE_SECONDS: Final = 3_600.0  # for the upgrade of a database
_SWEEP_REST_SECONDS: Final = 0.2  # how much later than it is due work may be ready
_BELLS: Final = "bells"  # a name in the data folder
# Not the shadow: it waits for more than work.
_WITH_BELL: Final = frozenset({QueueKind.ANALYSE, QueueKind.REPORT, QueueKind.DELIVER, QueueKind.COMMIT})
_UNFIT: Final = 1  # exit status of a role that must be started again


def _open_model(settings: InferenceSettings) -> ServedModel:
    from scp_node.inference.served_model import ServedModel  # noqa: PLC0415 - only the worker needs it

    return ServedModel.open(settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a node that a trial may replace."""

    program: Sequence[str] = (sys.executable, "-m", "scp_node")  # starts a role
    open_model: Callable[[InferenceSettings], ServedModel] = _open_model
    decoder: Sequence[str] | None = None  # arguments of the interpreter that start a decoder; None for the node's


PARTS: Final = Parts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A step that is repeated in a thread of its own."""

    progress: Progress
    step: Callable[[], bool]
    longest_pause: float = LONGEST_PAUSE  # seconds, while there is nothing to do and no bell rings


def owner_named(name: str) -> str:
    """Return a unique name for the leases of one loop."""
    return f"{socket.gethostname()}:{os.getpid()}:{name}:{uuid.uuid4().hex[:8]}"


def open_bells(settings: Settings) -> Bells:
    """Return the doorbells of this node; on SQLite all processes that work on its ledger are on one machine."""
    return Bells(settings.node.data_dir / _BELLS, one_machine=settings.database_url.startswith("sqlite"))


def await_ledger(settings: Settings, stop: threading.Event, heart: Heartbeat, bells: Bells) -> Ledger | None:
    """Return the ledger once it is usable; None if `stop` was set first.

    Raises:
        LedgerError: its schema is not this program's.
    """
    engine = open_engine(settings)
    is_ready = await_schema(
        engine,
        settings.node.data_dir,
        stop,
        may_upgrade=settings.database.upgrade_at_start,
        renew=lambda: heart.still_starting(UPGRADE_SECONDS),
    )
    return ledger_of_role(engine, settings, bells) if is_ready else None


def ledger_of_role(engine: Engine, settings: Settings, bells: Bells) -> Ledger:
    """Return the ledger as a role uses it; it rings for the work that it gets."""
    return Ledger(engine, policy_of(settings), ring=bells.ring, sweep_rest_seconds=_SWEEP_REST_SECONDS)


def _name_of_bell(loop: str) -> str:
    """Return the name of the queue that a loop works on; "" where no bell is rung for it."""
    kind, *destination = loop.split(":")[:2]  # behind them may stand the number of a further sender
    return ":".join((kind, *destination)) if kind in _WITH_BELL else ""


def sealing(ledger: Ledger, heart: Heartbeat) -> list[Loop]:
    """Return the loop that seals events, where they are not sealed as they are written."""
    if ledger.seals_at_once:
        return []
    return [Loop(progress=heart.loop("seal", STEP_SECONDS), step=ledger.sealer(owner=owner_named("seal")).step)]


def run_loops(stop: threading.Event, heart: Heartbeat, loops: Sequence[Loop], bells: Bells) -> int:
    """Run each loop in a separate thread until `stop`; return the exit status of the role.

    One whose name begins with that of a queue hears when that queue gets work.
    """
    unfit: list[str] = []

    def run(loop: Loop, bell: Bell | None) -> None:
        name = loop.progress.name
        patient = waiting(loop.step, stop, name=name, renew=loop.progress.renew)
        if not poll(patient, stop, name=name, longest_pause=loop.longest_pause, bell=bell):
            unfit.append(name)

    threads = []
    for loop in loops:
        name = _name_of_bell(loop.progress.name)
        bell = bells.hang(name) if name else None
        threads.append(threading.Thread(target=run, args=(loop, bell), name=loop.progress.name, daemon=True))
    for thread in threads:
        thread.start()
    heart.working()
    stop.wait()
    bells.ring_own()
    have_ended(threads, STOP_GRACE_SECONDS)
    return _UNFIT if unfit else 0
