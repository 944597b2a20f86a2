"""The command line, run in the test's own process: to start another takes most of a second.

What serves until it is stopped has a process of its own: see `tests.node`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from scp_node.cli.commands import main


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended: its exit status, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def run_here(*arguments: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> Ended:
    """Run `scp-node` with these arguments, in a folder and with variables of the environment such as TZ.

    A command that ends with an exception, and not with an exit status, fails the test.
    """
    written, told = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with contextlib.ExitStack() as stack:
        stack.callback(time.tzset)  # once the variables are what they were
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        patched.setattr(sys, "argv", ["scp-node", *map(str, arguments)])
        if cwd is not None:
            patched.chdir(cwd)
        for name, value in (environment or {}).items():
            patched.setenv(name, value)
        time.tzset()
        stack.enter_context(log_put_back())
        stack.enter_context(contextlib.redirect_stdout(written))
        stack.enter_context(contextlib.redirect_stderr(told))
        ended = stack.enter_context(pytest.raises(SystemExit))
        main()
    status = ended.value.code or 0
    assert isinstance(status, int)
    return Ended(returncode=status, stdout=_text(written), stderr=_text(told))


@contextlib.contextmanager
def log_put_back() -> Iterator[None]:
    """Put back what a command sets up for its process: the log and the filter of warnings."""
    root = logging.getLogger()
    handlers, levels = root.handlers[:], {name: logger.level for name, logger in _loggers()}
    root.handlers[:] = []  # the command would close them
    with warnings.catch_warnings():
        try:
            yield
        finally:
            root.handlers[:] = handlers
            for name, logger in _loggers():
                if logger.level != (level := levels.get(name, logging.NOTSET)):
                    logger.setLevel(level)  # looks at all loggers of the process


def _loggers() -> list[tuple[str, logging.Logger]]:
    named = logging.root.manager.loggerDict.items()
    return [("", logging.root), *((name, known) for name, known in named if isinstance(known, logging.Logger))]


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()


def run(*command: str, cwd: Path, expect: int = 0, **environment: str) -> str:
    """Run a command, check its exit status, and return what it wrote."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stdout
    return done.stdout
