"""The errors that an operator can fix: shown as one line, never as a traceback."""

from __future__ import annotations

from typing import Final

from pneumonia_model.bundle import BundleError
from pneumonia_model.prediction import BackendError

from scp_node.cli.console import UsageError
from scp_node.ledger import LedgerError
from scp_node.listener import ListenError
from scp_node.settings import SettingsError
from scp_node.spool import SpoolError

KNOWN_PROBLEMS: Final = (UsageError, SettingsError, LedgerError, SpoolError, ListenError, BundleError, BackendError)
