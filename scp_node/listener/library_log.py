"""What pynetdicom warns of, in the node's log: where in its source, and the type of the error.

Its own words may quote what a peer sent, the patient's name among it, so they are not repeated.
"""

from __future__ import annotations

import logging
from typing import Final

from structlog.contextvars import get_contextvars

from scp_node.logs import get_logger
from scp_node.runtime.repeated import Line, RepeatedLines

_LIBRARY: Final = "pynetdicom"
_SAID_BETTER: Final = frozenset(  # (module, function): the node has a line for each of these
    {
        ("association", "_run_reactor"),  # an idle association
        ("dul", "_read_pdu_data"),  # PDUs that cannot be read
        ("fsm", "do_action"),  # messages that cannot be read
        ("utils", "decode_bytes"),  # text that is not ASCII: its PDU or message cannot be read, or was mended
        ("utils", "set_ae"),  # malformed AE titles
        ("utils", "set_uid"),  # malformed UIDs, which have a status
    }
)

log = get_logger(__name__)


class _Repeater(logging.Filter):
    """Lets no record of pynetdicom's pass, and logs the place of those that nothing else in the log says."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = RepeatedLines(log)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False."""
        if record.levelno >= logging.WARNING and (record.module, record.funcName) not in _SAID_BETTER:
            error = record.msg if isinstance(record.msg, BaseException) else None
            place = f"{record.name}.{record.funcName}:{record.lineno}"
            told = type(error).__name__ if error else None
            peer = str(get_contextvars().get("peer", "none"))  # of the thread's association
            line = Line(record.levelno, "pynetdicom reports", {"place": place, "peer": peer, "error": told})
            self._lines.write(line, peer, place)
        return False


_REPEATER: Final = _Repeater()


def repeat_warnings() -> None:
    """Let the node's log repeat the warnings and errors of pynetdicom; safe to call again."""
    library = logging.getLogger(_LIBRARY)
    library.setLevel(logging.WARNING)
    library.propagate = False  # for modules that are imported later
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(f"{_LIBRARY}."):
            logging.getLogger(name).addFilter(_REPEATER)
