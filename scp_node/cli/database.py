"""The commands that look after the database: `scp-node db ...` and `scp-node audit verify`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from scp_node.cli.console import ConfigOption, UsageError, out, settings_of
from scp_node.opening import backup_database, copy_database, open_ledger, upgrade_database
from scp_node.settings_file import refuse_system_folder

audit_cli = typer.Typer(help="What was received, what the model said of it, and where the report went.")
db_cli = typer.Typer(help="The database.", no_args_is_help=True)


@audit_cli.command("verify")
def audit_verify(
    context: typer.Context,
    config: ConfigOption = None,
    head: Annotated[
        str | None,
        typer.Option(help="Hash that was printed earlier as the chain's head: must still be in the chain."),
    ] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Leave the bytes of reports and pictures unread.")] = False,
) -> None:
    """Check that no event was edited, removed, added or moved, and that rows and reports are what the events say.

    Prints how many events there are, and the head of their chain: note it elsewhere, and give it to --head later. Exits
    with 1 when something is wrong, and says what. A running node is not held up.
    """
    if head is not None and not re.fullmatch("[0-9a-f]{64}", head):
        raise UsageError("--head: give the 64 hexadecimal digits that an earlier `audit verify` printed")
    with closing(open_ledger(settings_of(config or context.obj))) as ledger:
        verification = ledger.verifier.verify(noted=head, quick=quick)
    out.print(f"events {verification.events}\nhead   {verification.head or 'none'}", highlight=False)
    if verification.unsealed:
        out.print(f"behind {verification.unsealed}, to be sealed", highlight=False)
    if not quick:
        out.print(f"files  {verification.files}", highlight=False)
    _end(verification.problems)


def _end(problems: Sequence[str]) -> None:
    for problem in problems:
        out.print("PROBLEM", style="red", end=" ")
        out.print(problem, highlight=False, markup=False)
    if problems:
        raise typer.Exit(1)
    out.print("the ledger says what was recorded", style="green")


@db_cli.command("upgrade")
def db_upgrade(config: ConfigOption = None) -> None:
    """Bring the schema up to date, and seal the events that a restored backup or a node that was killed left."""
    settings = settings_of(config)
    if settings.database.url == "":  # it lies in the data folder
        refuse_system_folder(settings)
    upgrade_database(settings)
    with closing(open_ledger(settings)) as ledger:
        ledger.seal()
    out.print("database is up to date")


@db_cli.command("rebuild")
def db_rebuild(config: ConfigOption = None) -> None:
    """Make the list of studies and the daily counts of the web page again from what the ledger recorded.

    The node may run, and nothing is lost meanwhile: the page shows the newest studies first until all are there again.
    Whoever keeps the list up to date helps, so that a rebuild that is interrupted is finished by the node.
    """
    from scp_node.report.source.description import describe  # noqa: PLC0415 - loads the DICOM library
    from scp_node.roles.common import owner_named  # noqa: PLC0415 - likewise

    with closing(open_ledger(settings_of(config))) as ledger:
        projector = ledger.projector(describe, owner=owner_named("rebuild"))
        with closing(projector):
            studies = projector.rebuild()
    out.print(f"the list has {studies} studies again")


@db_cli.command("copy")
def db_copy(
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="Of the empty database, such as postgresql+psycopg://user@host/scp_node."),
    ],
    config: ConfigOption = None,
) -> None:
    """Move a site: copy the whole database of these settings, such as SQLite in data_dir, into another, empty one.

    The node has to be stopped. Every row and the chain of the audit events are compared at the target; a copy that is
    interrupted leaves it empty. A password is best kept out of URL: libpq reads $PGPASSWORD and ~/.pgpass.
    """
    from scp_node.delivery.echo import answers_echo  # noqa: PLC0415

    settings = settings_of(config)
    if answers_echo(settings):
        raise UsageError("db copy: the node runs; stop it first, on every host")
    copied = copy_database(settings, url)
    table = Table("table", "rows, at the source and at the target")
    for name, rows in copied.rows.items():
        table.add_row(name, str(rows))
    out.print(table, highlight=False)
    out.print(
        f"events {copied.events}\nhead   {copied.head or 'none'}\n"
        "every row arrived as it was, and the chain is whole\n"
        "Next: set database.url to this database; node.data_dir stays, with the images and installation-id.\n"
        "Then start the node. The old database is not used any more: keep it until the next backup of the new one.",
        highlight=False,
        markup=False,
    )


@db_cli.command("backup")
def db_backup(
    file: Annotated[Path, typer.Argument(help="File to write.", dir_okay=False)],
    config: ConfigOption = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Copy an SQLite database to FILE while the node runs, and check the copy. For PostgreSQL: see docs/backup.md.

    Then copy the folder `spool` and the file `installation-id` of data_dir: in this order each row has its image.
    """
    verification = backup_database(settings_of(config), file, overwrite=force)
    out.print(
        f"{file} written\nevents {verification.events}\nhead   {verification.head or 'none'}",
        highlight=False,
        markup=False,
    )
    _end(verification.problems)
