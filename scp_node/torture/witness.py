"""A legitimate peer beside the attacks: it asks by C-ECHO at fixed times, whatever became of the one before.

It runs in another process, so that the attackers do not slow it down.
"""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Final, Self

from scp_node.delivery.association import VERIFICATION, RequestedAssociation
from scp_node.delivery.connection import AssociationError
from scp_node.dicom.syntaxes import NATIVE
from scp_node.settings import DestinationTlsSettings
from scp_node.tls.contexts import ClientTls
from scp_node.torture.swarm import Target

IN_A_ROW: Final = 2  # answers by which an SCP has recovered

_AT_THE_SAME_TIME: Final = 8  # a witness that fills the SCP up would be an attacker
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Echo:
    """One C-ECHO."""

    number: int  # 0 is the first
    at: float  # monotonic: when it was due
    seconds: float  # until its association was released, or it was given up
    error: str = ""  # why it was not answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Echoes:
    """How a number of C-ECHOs fared; the times are those of the answered ones, 0 where there are none."""

    asked: int
    answered: int
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, echoes: Sequence[Echo]) -> Self:
        """Count them."""
        times = sorted(1000 * each.seconds for each in echoes if not each.error)
        return cls(asked=len(echoes), answered=len(times), p50_ms=_quantile(times, 0.50), p99_ms=_quantile(times, 0.99))


class Witness:
    """The process that asks; a context manager."""

    def __init__(self, target: Target, *, every_seconds: float, patience_seconds: float) -> None:
        """Prepare it; entering starts it, and it asks `every_seconds`.

        `patience_seconds` is from the time when a C-ECHO is due to its response.
        """
        host, port = target.address
        words = (
            host,
            str(port),
            target.titles.calling,
            target.titles.called,
            str(every_seconds),
            str(patience_seconds),
            target.tls.model_dump_json() if target.tls else "",
        )
        self._command = [sys.executable, "-m", "scp_node.torture.witness", *words]
        self._patience_seconds = patience_seconds
        self._news = threading.Condition()
        self._echoes: list[Echo] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us: it ends when its standard input does
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()  # it ends then
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_STOP_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def echoes(self, since: float, until: float) -> list[Echo]:
        """Return the C-ECHOs that were due between two monotonic times, once all of them are answered or given up."""
        with self._news:
            patience = until + 2 * self._patience_seconds - time.monotonic()
            self._news.wait_for(lambda: self._has_all_before(until), patience)
            return [each for each in self._echoes if since <= each.at < until]

    def first(self) -> Echo | None:
        """Return the first C-ECHO, once it is answered or given up; None if the process does not get that far."""
        with self._news:
            self._news.wait_for(lambda: self._echoes, _START_SECONDS)
            return self._echoes[0] if self._echoes else None

    def recovers(self, within: float) -> bool:
        """Return whether the SCP answers a few C-ECHOs in a row that are due from now on, within that many seconds."""
        now = time.monotonic()
        with self._news:
            return self._news.wait_for(lambda: self._answered_in_a_row(now), within)

    def _has_all_before(self, until: float) -> bool:
        after = [each.number for each in self._echoes if each.at >= until]
        return bool(after) and sum(each.at < until for each in self._echoes) == min(after)

    def _answered_in_a_row(self, since: float) -> bool:
        found = sorted((each for each in self._echoes if each.at >= since), key=lambda each: each.at)[-IN_A_ROW:]
        return len(found) == IN_A_ROW and not any(each.error for each in found)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            with self._news:
                self._echoes.append(Echo(**json.loads(line)))
                self._news.notify_all()


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return the least value that this share of the values does not exceed, to a tenth; 0 where there is none."""
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 1) if ordered else 0.0


@dataclass(frozen=True, slots=True)
class _Peer:
    host: str
    port: int
    calling: str
    called: str
    patience_seconds: float
    tls: ClientTls | None

    def echo(self, number: int, at: float) -> Echo:
        """Ask by a C-ECHO that was due `at`."""
        error = self._error(at + self.patience_seconds)
        return Echo(number, at, time.monotonic() - at, error)

    def _error(self, deadline: float) -> str:
        if time.monotonic() >= deadline:
            return "those before it still wait"
        try:
            association = RequestedAssociation.request(
                self.host,
                self.port,
                calling_ae=self.calling,
                called_ae=self.called,
                contexts=[(VERIFICATION, list(NATIVE))],
                seconds=deadline - time.monotonic(),
                tls=self.tls,
            )
            with association.aborted_on_error():
                status = association.echo(seconds=deadline - time.monotonic())
        except AssociationError as error:
            return str(error)
        association.release()
        return f"status 0x{status:04X}" if status else ""


def _say(echo: Echo) -> None:
    sys.stdout.write(json.dumps(asdict(echo)) + "\n")
    sys.stdout.flush()


def main(host: str, port: str, calling: str, called: str, *how: str) -> None:
    """Ask until standard input ends, and write each C-ECHO to standard output as a line of JSON.

    `how`: seconds between two, seconds of patience, and the settings of TLS as JSON, "" for none.
    """
    every, patience, tls = how
    over = threading.Event()
    writing = threading.Lock()
    spoken = ClientTls(DestinationTlsSettings.model_validate_json(tls), "torture") if tls else None
    peer = _Peer(host, int(port), calling, called, float(patience), spoken)

    def ask(number: int, at: float) -> None:
        echo = peer.echo(number, at)
        with writing:
            _say(echo)

    def wait_for_the_end() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    began = time.monotonic()
    with ThreadPoolExecutor(_AT_THE_SAME_TIME) as pool:
        for number in itertools.count():
            due = began + number * float(every)
            if over.wait(max(0.0, due - time.monotonic())):
                break
            pool.submit(ask, number, due)
        pool.shutdown(wait=False, cancel_futures=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
