"""Log lines: a stable phrase and its fields; `phrase key=value` for people, or one JSON object a line.

A thread that serves a peer binds the peer's address (`structlog.contextvars`): each of its lines then names it. No line
may hold a patient's name, ID or birth date. The libraries below quote values of datasets in their warnings, so this
module silences them. The listener says in a line of its own where pynetdicom warned, without its words.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from structlog.contextvars import merge_contextvars
from structlog.stdlib import BoundLogger, ProcessorFormatter, filter_by_level
from structlog.typing import EventDict, WrappedLogger

from scp_node.settings import LogSettings

RESERVED: Final = frozenset({"at", "level", "logger", "event", "exception"})  # keys that each JSON line has

_WORD: Final = re.compile(r"[^\s'\"=]+")
_OURS: Final = ("scp_node.", "pneumonia_model.")
_OF_RECORD: Final = frozenset({"exc_info", "stack_info"})


def get_logger(name: str) -> BoundLogger:
    """Return the log of a module: `log.info("phrase", key=value)`, which stays a record of `logging`."""
    return BoundLogger(logging.getLogger(name), [filter_by_level, merge_contextvars, _to_record], {})


def configure_logging(settings: LogSettings) -> None:
    """Send the node's log to standard error, and drop what libraries would log about datasets."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(line_formatter(settings))
    logging.basicConfig(level=settings.level, handlers=[handler], force=True)
    for name in ("pydicom", "pynetdicom", "highdicom", "alembic", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")


def line_formatter(settings: LogSettings) -> logging.Formatter:
    """Return what writes the records, ours and those of libraries, as lines of the format that is set."""
    return ProcessorFormatter(processors=[_as_json if settings.format == "json" else _as_text])


def _to_record(_logger: WrappedLogger, _method: str, line: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """Return the arguments of `logging`: its message is the line for people, and the fields go beside it."""
    event = line.pop("event")
    of_record = {key: line.pop(key) for key in _OF_RECORD & line.keys()}
    return (_message(event, line),), {"extra": {"event": event, "fields": line}, **of_record}


def _as_json(_logger: WrappedLogger, _method: str, line: EventDict) -> str:
    record: logging.LogRecord = line["_record"]
    written = {
        "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "logger": record.name,
        "event": getattr(record, "event", line["event"]),
        **getattr(record, "fields", {}),
    }
    if told := _traceback(line):
        written["exception"] = told
    return json.dumps(written, ensure_ascii=False, default=_plain)


def _as_text(_logger: WrappedLogger, _method: str, line: EventDict) -> str:
    record: logging.LogRecord = line["_record"]
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
    first = f"{at},{int(record.msecs):03} {record.levelname:<7} {_escaped(line['event'])}"
    return "\n".join(filter(None, (first, _traceback(line))))


def _message(event: str, fields: Mapping[str, object]) -> str:
    return " ".join((event, *(f"{key}={_shown(value)}" for key, value in fields.items())))


def _shown(value: object) -> str:
    """Return a value as text without control characters, quoted unless it is one word."""
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(_shown(each) for each in value) or "none"
    told = "none" if value is None else str(value)
    return told if told.isprintable() and _WORD.fullmatch(told) else repr(told)


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _traceback(line: EventDict) -> str:
    """Return where an exception came from, its causes first; "" where there is none."""
    error: BaseException | None = line["exc_info"][1] if line.get("exc_info") else None
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(
        f"Traceback (most recent call last):\n{''.join(traceback.format_tb(each.__traceback__))}{_name(each)}"
        for each in reversed(chain)
    )


def _name(error: BaseException) -> str:
    """Return the type of an error, with its message where we or the operating system wrote it.

    Those of libraries and of Python may quote a value, such as "invalid literal for int()" or the failing row.
    """
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    is_safe = isinstance(error, OSError) or kind.__module__.startswith(_OURS)
    return f"{name}: {error}" if is_safe else name
