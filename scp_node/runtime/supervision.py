"""The supervisor's program, which takes the place of `scp-node serve` once all is checked.

The process keeps its number, and is rid of what only the checks needed: the command line, SQL and the model.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from scp_node.logs import configure_logging, get_logger
from scp_node.runtime.arguments import SUPERVISE
from scp_node.runtime.signals import RENEWING, STOPPING, set_on
from scp_node.runtime.supervisor import Supervisor
from scp_node.settings import LogSettings

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the supervisor has to know."""

    commands: Mapping[str, Sequence[str]]  # by the name of the role
    silent_seconds: float
    longest_pause: float
    log: Mapping[str, Any]  # the section [log]


def become_supervisor(plan: Plan) -> NoReturn:
    """Go on as the supervisor, which gets the signals that wait (`signals_wait`)."""
    command = [sys.executable, "-m", "scp_node", SUPERVISE, json.dumps(asdict(plan))]
    os.execv(sys.executable, command)  # noqa: S606 - our own program


def supervise(text: str) -> int:
    """Run the roles of a plan, which is JSON, until a signal ends the node; return the exit status."""
    plan = Plan(**json.loads(text))
    configure_logging(LogSettings.model_validate(plan.log))
    supervisor = Supervisor(plan.commands, silent_seconds=plan.silent_seconds, longest_pause=plan.longest_pause)
    stop, renew = set_on(*STOPPING), set_on(*RENEWING)
    status = supervisor.run(stop, renew)
    log.info("node stopped")
    return status
