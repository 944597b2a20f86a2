"""Log lines: a stable phrase, then key=value; as text for people, or as one JSON object a line.

No line may hold a patient's name, ID or birth date. The libraries below quote values of datasets in their warnings, so
this module silences them. The listener says in a line of its own where pynetdicom warned, without its words.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from datetime import UTC, datetime

from scp_node.settings import LogSettings


class JsonFormatter(logging.Formatter):
    """One JSON object for each record; control characters from peers are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class ConsoleFormatter(logging.Formatter):
    """Text for people; a record stays one line whatever a peer put into it."""

    def __init__(self) -> None:
        """Show local time, level and message."""
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the line with control characters escaped."""
        line = super().formatMessage(record)
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


def configure_logging(settings: LogSettings) -> None:
    """Send the node's log to standard error, and drop what libraries would log about datasets."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else ConsoleFormatter())
    logging.basicConfig(level=settings.level, handlers=[handler], force=True)
    for name in ("pydicom", "pynetdicom", "highdicom", "alembic", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
