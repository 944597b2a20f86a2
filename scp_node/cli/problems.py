"""The errors that an operator can fix: shown as one line, never as a traceback."""

from __future__ import annotations

from typing import Final

from pneumonia_model.bundle import BundleError
from pneumonia_model.errors import BackendError
from sqlalchemy.exc import SQLAlchemyError

from scp_node.cli.console import UsageError
from scp_node.domain import NodeError
from scp_node.ledger import LedgerError
from scp_node.settings import SettingsError

# Of the machine, such as a missing folder. In a role they end its process, and the supervisor starts it again.
ENVIRONMENT_PROBLEMS: Final = (OSError, SQLAlchemyError, UnicodeEncodeError)
KNOWN_PROBLEMS: Final = (UsageError, SettingsError, LedgerError, NodeError, BundleError, BackendError)


def in_one_line(error: Exception) -> str:
    """Return what an error says, without SQL, and with the name of the file where it is about one."""
    if isinstance(error, SQLAlchemyError):
        return f"database: {str(error).splitlines()[0]}"
    if isinstance(error, UnicodeEncodeError):
        return "an argument is not text in the encoding of this terminal"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
