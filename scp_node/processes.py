"""The programs of the node's processes: of each role, and of the supervisor.

They are not commands for people: without the libraries of the command line, each process takes 10 MiB less.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scp_node.dicom.libraries import CONSOLE, leave_out_libraries
from scp_node.runtime.arguments import ALLOW_DIFFERENT, SUPERVISE, SUPERVISED


def is_process(arguments: Sequence[str]) -> bool:
    """Return whether these arguments start a process of the node, and not a command."""
    return SUPERVISE in arguments[:1] or SUPERVISED in arguments


def run_process(arguments: Sequence[str]) -> int:
    """Run the supervisor or a role; return the exit status."""
    leave_out_libraries(*CONSOLE)  # before the log is loaded
    if SUPERVISE in arguments[:1]:
        from scp_node.runtime.supervision import supervise  # noqa: PLC0415 - the supervisor needs no more

        return supervise(arguments[1])
    return _run_role(arguments)


def _run_role(arguments: Sequence[str]) -> int:
    """Run a role; a setting, database or bundle that does not fit ends it with one line and exit status 2."""
    from scp_node.app import REFUSALS, Role, serve  # noqa: PLC0415 - loads the log, and SQL
    from scp_node.logs import configure_logging  # noqa: PLC0415 - as above
    from scp_node.runtime.supervisor import REFUSED  # noqa: PLC0415 - as above
    from scp_node.settings_file import load_settings  # noqa: PLC0415 - as above

    parser = argparse.ArgumentParser(prog="scp-node")
    parser.add_argument("command", choices=["serve"])
    parser.add_argument(SUPERVISED, action="store_true")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--role", type=Role, required=True)
    parser.add_argument(ALLOW_DIFFERENT, action="store_true", dest="allow_different")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings(given.config)
        configure_logging(settings.log)
        return serve(settings, given.config, given.role, supervised=True, allow_different=given.allow_different)
    except REFUSALS as error:
        print(f"scp-node: {error}", file=sys.stderr)  # noqa: T201 - the log may not be set up yet
        return REFUSED
