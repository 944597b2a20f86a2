"""The errors that an operator can fix: shown as one line, never as a traceback."""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from scp_node.app import REFUSALS
from scp_node.cli.console import UsageError

# The last three are of the machine, such as a missing folder.
KNOWN_PROBLEMS: Final = (UsageError, *REFUSALS, OSError, SQLAlchemyError, UnicodeEncodeError)


def in_one_line(error: Exception) -> str:
    """Return what an error says, without SQL, and with the name of the file where it is about one."""
    if isinstance(error, SQLAlchemyError):
        return f"database: {str(error).splitlines()[0]}"
    if isinstance(error, UnicodeEncodeError):
        return "an argument is not text in the encoding of this terminal"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
