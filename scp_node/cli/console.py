"""The parts that all commands share: their output, and their settings."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from scp_node.domain import Actor
from scp_node.logs import configure_logging
from scp_node.settings import Settings
from scp_node.settings_file import load_settings

out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 200)  # a pipe has no width: keep UIDs whole


class UsageError(ValueError):
    """The words of the command line do not fit together; the message says what to give."""


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Settings file. Default: $SCP_NODE_CONFIG, then ./scp_node.toml.", dir_okay=False
    ),
]


def settings_of(config: Path | None) -> Settings:
    """Return the settings, and set up the log by them."""
    settings = load_settings(config)
    configure_logging(settings.log)
    return settings


def operator() -> Actor:
    """Return who gives the command, as the audit trail names them: USER@HOST."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        user = str(os.geteuid())
    return Actor(name=f"{user}@{socket.gethostname()}", address="")
