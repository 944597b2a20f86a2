"""The command `scp-node`: a thin layer, every command calls into the node."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from scp_node import __version__
from scp_node.app import Role
from scp_node.app import serve as serve_node
from scp_node.cli.arguments import address, first_instant, instant_after, refuse_empty, title
from scp_node.cli.console import ConfigOption, UsageError, operator, out, settings_of
from scp_node.cli.database import audit_cli, db_cli
from scp_node.cli.feedback import feedback
from scp_node.cli.people import token_cli, user_cli
from scp_node.cli.resolve import resolve
from scp_node.cli.tls import tls_cli
from scp_node.cli.torture import torture
from scp_node.cli.trial import send_test
from scp_node.ledger import AuditQuery, DeliveryState, ImageState
from scp_node.opening import open_ledger, stored_files
from scp_node.private_files import make_private_folder, write_private
from scp_node.runtime.arguments import ALLOW_DIFFERENT
from scp_node.settings import DEFAULT_FILE
from scp_node.settings_file import commented_toml, load_settings, named_file, settings_path

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
cli.add_typer(user_cli, name="user")
cli.add_typer(token_cli, name="token")
cli.add_typer(tls_cli, name="tls")
cli.command()(resolve)
cli.command()(feedback)
cli.command("send-test")(send_test)
cli.command()(torture)

STATES: Final[Mapping[str, ImageState | DeliveryState]] = {str(state): state for state in (*ImageState, *DeliveryState)}
MANY: Final = 100  # images that `reanalyse` takes without being told so


class Format(StrEnum):
    """The output format of `audit`."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def main() -> None:
    """Run the command line; a known problem ends it with one line and exit status 2."""
    for stream in (sys.stdout, sys.stderr):  # the name of a file may hold what the terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        refuse_empty(sys.argv[1:])
        cli()
    except SystemExit:  # said before what follows, which loads all that defines a problem
        raise
    except _problems() as error:
        from scp_node.cli.problems import in_one_line  # noqa: PLC0415

        print(f"scp-node: {in_one_line(error)}", file=sys.stderr)  # noqa: T201 - the log may not be set up yet
        raise SystemExit(2) from None


def _problems() -> tuple[type[Exception], ...]:
    """Return what ends a command with one line: asked where one ends so, since it takes half a second to load."""
    from scp_node.cli.problems import KNOWN_PROBLEMS  # noqa: PLC0415

    return KNOWN_PROBLEMS


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
) -> None:
    """Run the node."""
    settings = settings_of(config)
    raise SystemExit(serve_node(settings, config, role, allow_different=allow_different))


@cli.command()
def init(
    file: Annotated[
        Path | None, typer.Argument(help="File to write. Default: $SCP_NODE_CONFIG, then ./scp_node.toml.")
    ] = None,
    config: ConfigOption = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented settings file: to FILE, else to --config, else to $SCP_NODE_CONFIG."""
    path = file or config or named_file() or DEFAULT_FILE
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the file to write")
    if path.exists() and not force:
        raise UsageError(f"{path} is there already; --force overwrites it")
    write_private(path, commented_toml().encode())  # a password may be written into it
    out.print(f"{path} written: every setting with its default", highlight=False, markup=False)


@cli.command()
def doctor(
    config: ConfigOption = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array: name, good, message.")] = False,
) -> None:
    """Check settings, folder, database, model and destinations, and say what to do about each problem.

    Exits with 0 when nothing keeps the node from working, 1 when there is a problem, and 2 when the settings cannot be
    read. Creates nothing: what the first `serve` will make is missing without a problem.
    """
    from scp_node.cli.doctor import examine  # noqa: PLC0415

    examinations = examine(load_settings(config), settings_path(config))
    if as_json:
        sys.stdout.write(json.dumps([each.document() for each in examinations]) + "\n")
    for each in () if as_json else examinations:
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
    since: Annotated[
        str | None, typer.Option(help="Received on or after this date or time, ISO 8601; local without a zone.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Received up to and including this day or second, ISO 8601.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Study Instance UID.")] = None,
    accession: Annotated[str | None, typer.Option(help='Accession Number; "*" and "?" are wildcards.')] = None,
    patient: Annotated[str | None, typer.Option(help='Patient ID; "*" and "?" are wildcards.')] = None,
    instance: Annotated[
        str | None,
        typer.Option(
            "--instance", "--sop-instance-uid", help="SOP Instance UID of an image, a report, or what went with one."
        ),
    ] = None,
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
        since=first_instant("--since", since),
        until=instant_after("--until", until),
        study_uid=study,
        accession=accession,
        patient_id=patient,
        sop_instance_uid=instance,
        state=None if state is None else STATES[state],
    )
    with closing(open_ledger(settings_of(config))) as ledger:
        print_audit(ledger.audit.instances(query), format_.value, out)


@cli.command()
def report(
    study_uid: Annotated[str, typer.Argument(help="Study Instance UID.")],
    config: ConfigOption = None,
    version: Annotated[
        int | None, typer.Option(min=1, max=2**31 - 1, help="Which version; default: the newest.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the DICOM file here instead of showing it.")] = None,
    save_all: Annotated[
        Path | None,
        typer.Option("--save-all", help="Write it and all that went with it to this folder."),
    ] = None,
) -> None:
    """Show or save the Structured Report of a study, byte for byte as it was sent.

    Where the study names several patients, that is the newest report of each.
    """
    if save and save_all:
        raise UsageError("report: give --save or --save-all, not both")
    with closing(open_ledger(settings_of(config))) as ledger:
        found = ledger.reports.files(study_uid, version)
        if not found:
            raise UsageError(f"no report of study {study_uid}" + (f", version {version}" if version else ""))
        all_files = [
            each
            for _, uid, file in found
            for each in (("report", uid, file), *(ledger.reports.companions(uid) if save_all else ()))
        ]
    if save_all:
        make_private_folder(save_all)
        for kind, name, content in all_files:
            write_private(save_all / f"{kind}-{name}.dcm", content)
            out.print(f"{kind} ({name}) written to {save_all}", highlight=False, markup=False)
        return
    if save:
        if len(found) > 1:
            versions = ", ".join(str(number) for number, _, _ in found)
            raise UsageError(f"the study names several patients: choose one report with --version ({versions})")
        [(number, uid, file)] = found
        write_private(save, file)
        out.print(f"version {number} ({uid}) written to {save}", highlight=False, markup=False)
        return
    from scp_node.report.text import as_text, patient_of  # noqa: PLC0415

    for number, uid, file in found:
        head = f"Version {number} of {patient_of(file)}, SOP Instance UID {uid}"
        out.print(f"{head}\n{as_text(file)}", highlight=False, markup=False)


@cli.command()
def send(
    files: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them.")],
    config: ConfigOption = None,
    to: Annotated[str | None, typer.Option(help="HOST:PORT of the Storage SCP. Default: this node's own.")] = None,
    called: Annotated[str | None, typer.Option(help="Its AE title. Default: this node's own.")] = None,
    calling: Annotated[str, typer.Option(help="Our AE title.")] = "SCP-NODE-SEND",
    *,
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS. Without --to: to this node's port for it.")] = False,
    ca_file: Annotated[
        Path | None,
        typer.Option(help="PEM file with the authority of the peer's certificate. Default: this machine's."),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM file with the certificate that we show.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file with its private key.")] = None,
    peer_certificate: Annotated[
        str, typer.Option(help='Name in the peer\'s certificate, or "sha256:" and its SHA-256. Default: HOST.')
    ] = "",
) -> None:
    """Send DICOM files by C-STORE: a test sender. Exits with 1 when a file was not taken, and says why."""
    from scp_node.cli.contact import Call  # noqa: PLC0415
    from scp_node.cli.sending import send_with_progress, tls_options  # noqa: PLC0415

    settings = settings_of(config)
    own = (settings.listen.tls_host, settings.listen.tls.port) if tls else (settings.listen.host, settings.listen.port)
    host, port = own if to is None else address("--to", to)
    spoken = tls_options(
        "send", on=tls, ca_file=ca_file, certificate=certificate, key=key, peer_certificate=peer_certificate
    )
    call = Call(
        host=host,
        port=port,
        called=settings.node.ae_title if called is None else title("--called", called),
        calling=title("--calling", calling),
        called_set_by="--called",
        calling_set_by="--calling",
        address_set_by="--to",
        tls_set_by="--tls and the options after it",
    )
    raise SystemExit(send_with_progress(files, call, out, tls=spoken))


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
        if selector is not None and not ledger.audit.knows(selector):
            raise UsageError(f"requeue: {selector} is not known: not a work id, and no image, study or report has it")
        upkeep = ledger.upkeep
        who = operator()
        number = upkeep.discard(selector, actor=who) if discard and selector else upkeep.requeue(selector, actor=who)
        gone = 0 if discard or selector is None else upkeep.without_original(selector)
    left_out = f"; {gone} left out, their originals are no longer kept" if gone else ""
    if not (number or gone):
        left_out = ": nothing of it was given up" if selector else ": nothing was given up"
    out.print(f"{number} {'discarded' if discard else 'put back'}{left_out}")


@cli.command()
def reanalyse(
    study_uid: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Study Instance UID.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    since: Annotated[str | None, typer.Option(help="Images received on or after this date or time, ISO 8601.")] = None,
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
    received_since = first_instant("--since", since)
    settings = settings_of(config)
    files = stored_files(settings)
    with closing(open_ledger(settings)) as ledger:
        if study_uid is not None and not ledger.audit.knows_study(study_uid):
            raise UsageError(f"reanalyse: no image of study {study_uid} was received")
        if model is not None and not ledger.audit.knows_model(model):
            raise UsageError(f"reanalyse: no result is by {model}; give NAME-VERSION or the digest, sha256:...")
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
    """Show the model's identity, intended use and figures, and those of a shadow bundle."""
    from scp_node.inference.shadow import describe_both  # noqa: PLC0415

    out.print_json(json.dumps(describe_both(settings_of(config).inference)))


@model_cli.command("promote")
def model_promote(
    config: ConfigOption = None,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who decided it. Default: the system's user.")] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would be done.")] = False,
) -> None:
    """Make the shadow bundle the reporting one: in the settings file and in the audit. Restart the node afterwards.

    First the bundle answers its golden inputs. The settings file has to name both bundles in [inference], each in a
    line of its own; what it was before is kept beside it as FILE.before-promotion. Where one step fails, nothing is
    changed.
    """
    from scp_node.cli.promote import promote  # noqa: PLC0415

    promote(config, by, yes=yes)


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
