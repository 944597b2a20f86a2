"""Runs commands of this program as children: they load the network and the model, and this process never does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from scp_node.domain import Actor, utc_now
from scp_node.ledger import AWAY
from scp_node.logs import get_logger
from scp_node.web.site import Site

log = get_logger(__name__)

PROGRAM: Final = (sys.executable, "-m", "scp_node")
_START_SECONDS: Final = 60.0  # loads the model, and asks our own port
_LONGEST_TEXT: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """One thing that was looked at, or the answer to a test report."""

    name: str
    good: bool
    message: str
    status: str = ""  # of the C-STORE response to a test report
    sent_uid: str = ""  # of the test report


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a child; it may not have ended yet."""

    began_at: datetime
    by: str
    ended_at: datetime | None = None
    examined: tuple[Examined, ...] = ()
    problem: str = ""  # why there is no result


class Examiner:
    """Runs `scp-node doctor` and `scp-node send-test`, one child at a time, and keeps the last answers."""

    def __init__(self, site: Site, program: Sequence[str] = PROGRAM) -> None:
        """Examine the node of `site` by the commands of `program`."""
        self._site = site
        self._program = tuple(program)
        self._running = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._closed = False
        self._runs: dict[str, Run] = {}

    def examine(self, actor: Actor) -> bool:
        """Begin an examination of the node; return False if a child runs already."""
        return self._begin("", actor)

    def send_test(self, destination: str, actor: Actor) -> bool:
        """Begin to send a test report; return False if a child runs already."""
        return self._begin(destination, actor)

    def examination(self) -> Run | None:
        """Return the last examination of the node."""
        return self._runs.get("")

    def trial(self, destination: str) -> Run | None:
        """Return the last test report to a destination."""
        return self._runs.get(destination)

    @property
    def is_running(self) -> bool:
        """Return whether a child runs."""
        return self._running.locked()

    def close(self) -> None:
        """End the child that runs."""
        self._closed = True
        if process := self._process:
            process.kill()

    def _begin(self, destination: str, actor: Actor) -> bool:
        if not self._running.acquire(blocking=False):
            return False
        with ExitStack() as undo:
            undo.callback(self._running.release)
            detail = {"destination": destination} if destination else {}
            self._site.ledger.visits.note("web-test-report" if destination else "web-doctor", actor, detail=detail)
            self._runs[destination] = Run(began_at=utc_now(), by=actor.name)
            threading.Thread(target=self._work, args=(destination, actor), name="examiner", daemon=True).start()
            undo.pop_all()  # the thread releases it
        return True

    def _work(self, destination: str, actor: Actor) -> None:
        run = self._runs[destination]
        try:
            run = self._answered(run, destination)
            if destination:
                self._note_answer(run, destination, actor)
        finally:
            self._runs[destination] = replace(run, ended_at=utc_now())
            self._running.release()

    def _answered(self, run: Run, destination: str) -> Run:
        command = [*self._program, "send-test" if destination else "doctor", "--json"]
        if self._site.config:
            command += ["--config", str(self._site.config)]
        if destination:
            command += ["--", destination]
        try:
            output, told = self._output(command)
        except subprocess.TimeoutExpired as error:
            return replace(run, problem=f"no answer within {error.timeout:.0f} s: it was stopped")
        except OSError as error:
            return replace(run, problem=f"it could not be started: {error.strerror}")
        try:
            return replace(run, examined=_read(output))
        except (ValueError, KeyError, TypeError):
            last = told.strip().splitlines()[-1:] or ["it ended without an answer"]
            return replace(run, problem=last[0].removeprefix("scp-node: ")[:_LONGEST_TEXT])

    def _output(self, command: Sequence[str]) -> tuple[str, str]:
        settings = self._site.settings
        each = 2 * settings.delivery.send_seconds + settings.delivery.connect_seconds
        seconds = _START_SECONDS + each * (1 + len(settings.destinations))
        pipe = subprocess.PIPE
        with subprocess.Popen(  # noqa: S603 - our own program; the only value is the name of a destination
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, errors="replace"
        ) as process:
            self._process = process
            try:
                if self._closed:
                    process.kill()
                return process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            finally:
                self._process = None

    def _note_answer(self, run: Run, destination: str, actor: Actor) -> None:
        detail = {"destination": destination, "reason": run.problem}
        for answer in run.examined:
            detail = {
                "destination": destination,
                "status": answer.status,
                "sent_uid": answer.sent_uid,
                "reason": answer.message[:_LONGEST_TEXT],
            }
        try:
            self._site.ledger.visits.note("web-test-result", actor, detail=detail)
        except AWAY as error:
            log.warning("answer to a test report not noted", destination=destination, error=type(error).__name__)


def _read(output: str) -> tuple[Examined, ...]:
    """Return what a command printed with --json.

    Raises:
        ValueError, KeyError, TypeError: it is something else.
    """
    answer = json.loads(output)
    return tuple(_examined(each) for each in (answer if isinstance(answer, list) else [answer]))


def _examined(each: Any) -> Examined:
    return Examined(
        name=str(each["name"] if "name" in each else each["destination"]),
        good=each["good"] is True,
        message=str(each["message"]),
        status=str(each.get("status") or ""),
        sent_uid=str(each.get("sop_instance_uid") or ""),
    )
