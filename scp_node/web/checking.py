"""Runs `scp-node audit verify --quick` beside the page: it reads every event, which no page waits for."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from scp_node.settings import CONFIG_VARIABLE, ENVIRONMENT_PREFIX, Settings

_COMMAND: Final = (sys.executable, "-m", "scp_node", "audit", "verify", "--quick")
_LONGEST_SECONDS: Final = 3_600.0
_MOST_LINES: Final = 40  # it names at most 20 problems


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """A check of the chain, ended or running."""

    by: str  # who asked for it
    begun_at: datetime
    ended_at: datetime | None = None  # None while it runs
    is_good: bool = False
    lines: tuple[str, ...] = ()  # what the command printed


class ChainCheck:
    """One check at a time, in another process."""

    def __init__(self) -> None:
        """Nothing was checked yet."""
        self._lock = threading.Lock()
        self._result: CheckResult | None = None
        self._process: subprocess.Popen[str] | None = None

    @property
    def result(self) -> CheckResult | None:
        """Return the last check, or the one that runs; None before the first."""
        return self._result

    def begin(self, settings: Settings, by: str) -> bool:
        """Begin a check; return False where one runs already.

        Raises:
            OSError: the process cannot be started.
        """
        with self._lock:
            if self._process is not None:
                return False
            self._process = subprocess.Popen(  # noqa: S603 - no word of it comes from a browser
                _COMMAND,
                env=_environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self._result = CheckResult(by=by, begun_at=datetime.now(UTC))
            threading.Thread(target=self._wait, args=(self._process,), name="audit verify", daemon=True).start()
        return True

    def stop(self) -> None:
        """End the process that checks."""
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def _wait(self, process: subprocess.Popen[str]) -> None:
        try:
            told, _ = process.communicate(timeout=_LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            told, _ = process.communicate()
        with self._lock:
            self._process = None
            if self._result is not None:
                lines = tuple(line.strip() for line in told.splitlines()[:_MOST_LINES])
                is_good = process.returncode == 0
                self._result = replace(self._result, ended_at=datetime.now(UTC), is_good=is_good, lines=lines)


def _environment(settings: Settings) -> dict[str, str]:
    """Return the environment of the command: this node's database, whichever file the settings came from."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
    file = settings.database.password_file
    password = {f"{ENVIRONMENT_PREFIX}DATABASE__PASSWORD_FILE": str(file.absolute())} if file else {}
    return (
        kept
        | password
        | {
            CONFIG_VARIABLE: os.devnull,
            f"{ENVIRONMENT_PREFIX}NODE__DATA_DIR": str(settings.node.data_dir.absolute()),
            f"{ENVIRONMENT_PREFIX}DATABASE__URL": settings.database_url,
        }
    )
