"""The command `scp-node`: a thin layer, every command calls into the node."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from scp_node import __version__
from scp_node.app import ALLOW_DIFFERENT, Role
from scp_node.app import serve as serve_node
from scp_node.cli.console import ConfigOption, UsageError, out, settings_of
from scp_node.cli.database import audit_cli, db_cli
from scp_node.cli.resolve import resolve
from scp_node.ledger import AuditQuery, DeliveryState, ImageState
from scp_node.opening import open_ledger, stored_files
from scp_node.settings import DEFAULT_FILE
from scp_node.settings_file import commented_toml, load_settings

cli = typer.Typer(
    name="scp-node",
    help="DICOM node that reads chest X-rays and returns Structured Reports. Research use only: not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
model_cli = typer.Typer(help="The model bundle that the node serves.", no_args_is_help=True)
cli.add_typer(model_cli, name="model")
cli.add_typer(audit_cli, name="audit")
cli.add_typer(db_cli, name="db")
cli.command()(resolve)

STATES: Final[Mapping[str, ImageState | DeliveryState]] = {str(state): state for state in (*ImageState, *DeliveryState)}
MANY: Final = 100  # images that `reanalyse` takes without being told so


class Format(StrEnum):
    """The output format of `audit`."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def main() -> None:
    """Run the command line; a known problem ends it with one line and exit status 2."""
    from scp_node.cli.problems import KNOWN_PROBLEMS  # noqa: PLC0415

    try:
        cli()
    except KNOWN_PROBLEMS as error:
        print(f"scp-node: {error}", file=sys.stderr)  # noqa: T201 - the log may not be set up yet
        raise SystemExit(2) from None


@cli.callback(invoke_without_command=True)
def _version(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False
) -> None:
    if version:
        out.print(f"scp-node {__version__}")
        raise typer.Exit


@cli.command()
def serve(
    config: ConfigOption = None,
    role: Annotated[Role, typer.Option(help="Run one role only: for several hosts on one PostgreSQL.")] = Role.ALL,
    *,
    allow_different: Annotated[
        bool, typer.Option(ALLOW_DIFFERENT, help="Work beside processes of the ledger that decide by other settings.")
    ] = False,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Run the node."""
    settings = settings_of(config)
    raise SystemExit(serve_node(settings, config, role, supervised=supervised, allow_different=allow_different))


@cli.command()
def init(
    file: Annotated[Path | None, typer.Argument(help="File to write. Default: ./scp_node.toml.")] = None,
    config: ConfigOption = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented settings file: to FILE, else to --config."""
    path = file or config or DEFAULT_FILE
    if path.exists() and not force:
        raise UsageError(f"{path} is there already; --force overwrites it")
    path.write_text(commented_toml(), encoding="utf-8")
    out.print(f"{path} written: every setting with its default", highlight=False)


@cli.command()
def doctor(config: ConfigOption = None) -> None:
    """Check settings, folder, database, model and destinations, and say what to do about each problem."""
    from scp_node.cli.doctor import examine  # noqa: PLC0415

    examinations = examine(load_settings(config))
    for each in examinations:
        out.print("ok     " if each.good else "PROBLEM", style="green" if each.good else "red", end=" ")
        out.print(f"{each.name}: {each.message}", highlight=False, markup=False)
    raise SystemExit(0 if all(each.good for each in examinations) else 1)


@cli.command()
def health(config: ConfigOption = None) -> None:
    """Exit with 0 when the running node answers a C-ECHO, else with 1: for container health checks."""
    from scp_node.delivery.echo import answers_echo  # noqa: PLC0415

    settings = load_settings(config)
    good = answers_echo(settings)
    out.print("healthy" if good else "no answer to C-ECHO")
    raise SystemExit(0 if good else 1)


@audit_cli.callback(invoke_without_command=True)
def audit(
    context: typer.Context,
    config: ConfigOption = None,
    since: Annotated[str | None, typer.Option(help="Received at or after this ISO 8601 instant.")] = None,
    until: Annotated[str | None, typer.Option(help="Received before this ISO 8601 instant.")] = None,
    study: Annotated[str | None, typer.Option(help="Study Instance UID.")] = None,
    accession: Annotated[str | None, typer.Option(help="Accession Number.")] = None,
    state: Annotated[str | None, typer.Option(help=f"One of {', '.join(STATES)}.", show_default=False)] = None,
    format_: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
) -> None:
    """Show what was received, what the model said of it, and where the report went."""
    from scp_node.cli.tables import print_audit  # noqa: PLC0415

    if context.invoked_subcommand:
        context.obj = config
        return
    if state is not None and state not in STATES:
        raise UsageError(f"--state: one of {', '.join(STATES)}")
    query = AuditQuery(
        since=_instant("--since", since),
        until=_instant("--until", until),
        study_uid=study,
        accession=accession,
        state=None if state is None else STATES[state],
    )
    with closing(open_ledger(settings_of(config))) as ledger:
        print_audit(ledger.audit.instances(query), format_.value, out)


def _instant(option: str, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        raise UsageError(f"{option}: give an ISO 8601 date or time, such as 2026-03-01T08:00+01:00") from None
    return (instant if instant.tzinfo else instant.astimezone()).astimezone(UTC)


@cli.command()
def report(
    study_uid: Annotated[str, typer.Argument(help="Study Instance UID.")],
    config: ConfigOption = None,
    version: Annotated[int | None, typer.Option(help="Which version; default: the newest.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the DICOM file here instead of showing it.")] = None,
    save_all: Annotated[
        Path | None,
        typer.Option("--save-all", help="Write it and all that went with it to this folder."),
    ] = None,
) -> None:
    """Show or save the Structured Report of a study, byte for byte as it was sent."""
    with closing(open_ledger(settings_of(config))) as ledger:
        found = ledger.reports.file(study_uid, version)
        if found is None:
            raise UsageError(f"no report of study {study_uid}" + (f", version {version}" if version else ""))
        number, uid, file = found
        companions = ledger.reports.companions(uid) if save_all else []
    if save_all:
        save_all.mkdir(parents=True, exist_ok=True)
        for kind, name, content in [("report", uid, file), *companions]:
            (save_all / f"{kind}-{name}.dcm").write_bytes(content)
            out.print(f"{kind} ({name}) written to {save_all}", highlight=False)
        return
    if save:
        save.write_bytes(file)
        out.print(f"version {number} ({uid}) written to {save}")
        return
    from scp_node.report.text import as_text  # noqa: PLC0415

    out.print(f"Version {number}, SOP Instance UID {uid}\n{as_text(file)}", highlight=False, markup=False)


@cli.command()
def send(
    files: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them.")],
    config: ConfigOption = None,
    to: Annotated[str | None, typer.Option(help="HOST:PORT of the Storage SCP. Default: this node's own.")] = None,
    called: Annotated[str | None, typer.Option(help="Its AE title. Default: this node's own.")] = None,
    calling: Annotated[str, typer.Option(help="Our AE title.")] = "SCP-NODE-SEND",
) -> None:
    """Send DICOM files by C-STORE: a test sender."""
    from scp_node.cli.tables import send_with_progress  # noqa: PLC0415

    settings = settings_of(config)
    target = to or f"{settings.listen.host}:{settings.listen.port}"
    raise SystemExit(send_with_progress(files, target, called or settings.node.ae_title, calling, out))


@cli.command()
def requeue(
    selector: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="Work id, SOP Instance UID of an image or report, or Study Instance UID.",
        ),
    ] = None,
    config: ConfigOption = None,
    *,
    dead: Annotated[bool, typer.Option("--dead", help="Put back everything that was given up.")] = False,
    discard: Annotated[bool, typer.Option("--discard", help="Close what ID names for good instead.")] = False,
) -> None:
    """Put work back that was given up: failed images, undeliverable reports."""
    if dead == (selector is not None) or (discard and selector is None):
        raise UsageError("requeue: give an ID, or --dead for everything that was given up")
    with closing(open_ledger(settings_of(config))) as ledger:
        upkeep = ledger.upkeep
        number = upkeep.discard(selector) if discard and selector else upkeep.requeue(selector)
        gone = 0 if discard or selector is None else upkeep.without_original(selector)
    left_out = f"; {gone} left out, their originals are no longer kept" if gone else ""
    out.print(f"{number} {'discarded' if discard else 'put back'}{left_out}")


@cli.command()
def reanalyse(
    study_uid: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Study Instance UID.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    since: Annotated[str | None, typer.Option(help="Images received at or after this ISO 8601 instant.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Images that this bundle, NAME-VERSION or its digest, spoke of last.")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many images that would be.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help=f"Do it for more than {MANY} images, too.")] = False,
) -> None:
    """Have images analysed again by the model that the node serves now, after everything that arrives meanwhile.

    Results are added, never changed. A report that then says something else is sent as a new version that names the one
    before; one that says the same is not sent again. Images whose file is gone are left as they are.
    """
    if study_uid is since is model is None:
        raise UsageError("reanalyse: give a STUDY, --since or --model; together they must all hold")
    received_since = _instant("--since", since)
    settings = settings_of(config)
    files = stored_files(settings)
    with closing(open_ledger(settings)) as ledger:
        ended = ledger.reanalysis.ended(study_uid=study_uid, since=received_since, model=model)
        images = [image for image in ended if image.kept and files.holds(image.spool_path)]
        chosen = f"{len(images)} images of {len({image.study_uid for image in images})} studies"
        if gone := len(ended) - len(images):
            chosen += f"; {gone} left out, their files are gone"
        if dry_run:
            out.print(f"would analyse again: {chosen}")
            return
        if len(images) > MANY and not yes:
            raise UsageError(f"reanalyse: {chosen}; --yes does that")
        out.print(f"to be analysed again: {chosen}")
        ledger.reanalysis.request(images)


@model_cli.command("show")
def model_show(config: ConfigOption = None) -> None:
    """Show the model's identity, intended use and figures."""
    from scp_node.inference.served_model import describe  # noqa: PLC0415

    out.print_json(json.dumps(describe(settings_of(config).inference)))


@model_cli.command("verify")
def model_verify(
    config: ConfigOption = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Check the bundle piece by piece: files, digest, weights, preprocessing, and the network's answers.

    The network answers its golden inputs on every runtime that is installed, with 1, 2 and 4 threads. Exits with 1 when
    a check fails, and names it.
    """
    from pneumonia_model.verification import verify  # noqa: PLC0415

    inference = settings_of(config).inference
    verification = verify(inference.bundle, operating_point=inference.operating_point)
    if as_json:
        out.print_json(json.dumps(verification.document()))
    else:
        table = Table("check", "result", "found")
        for check in verification.checks:
            table.add_row(*(Text(text, overflow="fold") for text in (check.name, check.result, check.found)))
        out.print(table, highlight=False)
        failed = ", ".join(verification.failed)
        out.print(f"FAILED: {failed}" if failed else "all checks passed", style="red" if failed else "green")
    raise SystemExit(1 if verification.failed else 0)
