"""`scp-node send-test`: a report of nobody is sent to a destination, and its answer is shown."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from scp_node import __version__
from scp_node.cli.console import ConfigOption, UsageError, out, settings_of
from scp_node.domain import BuiltObject, utc_now
from scp_node.opening import INSTALLATION_ID, installation_id
from scp_node.settings import DestinationSettings, Settings, SettingsError

if TYPE_CHECKING:
    from scp_node.delivery import SendResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of a test report."""

    destination: str
    good: bool
    message: str
    status: str | None = None  # of the C-STORE response, such as "0xA700"
    sop_class_uid: str = ""  # in which it was sent; "": it was not
    sop_instance_uid: str = ""


def send_test(
    name: Annotated[str, typer.Argument(metavar="DESTINATION", help="Name of an entry of [[destinations]].")],
    config: ConfigOption = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a line.")] = False,
) -> None:
    """Send a small report that says "THIS IS A TEST, NO PATIENT" to a destination, and show its answer.

    The patient is TEST^SCP-NODE. All tests of a day lie in one study, which can be deleted in the PACS. The ledger does
    not learn of it. Exits with 1 when the destination does not take it.
    """
    settings = settings_of(config)
    found = next((entry for entry in settings.destinations if entry.name == name), None)
    if found is None:
        known = ", ".join(entry.name for entry in settings.destinations) or "none"
        raise UsageError(f"send-test: {name} is no name of an entry of [[destinations]]; there are: {known}")
    trial = try_destination(settings, found)
    if as_json:
        sys.stdout.write(json.dumps(asdict(trial)) + "\n")
    else:
        out.print("ok     " if trial.good else "PROBLEM", style="green" if trial.good else "red", end=" ")
        out.print(f"{trial.destination}: {trial.message}", highlight=False, markup=False)
    raise SystemExit(0 if trial.good else 1)


def try_destination(settings: Settings, destination: DestinationSettings) -> Trial:
    """Ask a destination by C-ECHO, then send it a test report.

    Raises:
        SettingsError: the identifier of this installation is damaged or cannot be read.
    """
    from scp_node.cli.examination import examine_destination  # noqa: PLC0415 - loads what only this command needs
    from scp_node.roles.sender import open_scu  # noqa: PLC0415
    from scp_node.tls.contexts import client_tls  # noqa: PLC0415

    asked = examine_destination(settings, destination)
    if not asked.good:
        return Trial(destination=destination.name, good=False, message=asked.message)
    built = _built(settings)
    scu = open_scu(settings, destination, client_tls(destination))
    try:
        sent = scu.send(built.file)
    finally:
        scu.close()
    return _told(destination, built, sent)


def _told(destination: DestinationSettings, built: BuiltObject, sent: SendResult) -> Trial:
    from pydicom.uid import UID  # noqa: PLC0415

    from scp_node.cli.contact import status_words  # noqa: PLC0415
    from scp_node.delivery import Disposition  # noqa: PLC0415

    where = f"{destination.ae_title} at {destination.host}:{destination.port}"
    good = sent.disposition is Disposition.DELIVERED
    if good:
        remark = f", {sent.detail}" if sent.detail else ""
        message = f"{where} took the test report as {UID(sent.sop_class_uid).name}: status 0x{sent.status or 0:04X}"
        message += f"{remark}; it has to show TEST^SCP-NODE now"
    elif sent.status is not None:
        message = f"{where} answers C-ECHO, and did not take the test report: {status_words(sent.status)}"
    else:
        message = f"{where} answers C-ECHO, and did not take the test report: {sent.detail}"
    return Trial(
        destination=destination.name,
        good=good,
        message=message,
        status=None if sent.status is None else f"0x{sent.status:04X}",
        sop_class_uid=sent.sop_class_uid,
        sop_instance_uid=built.sop_instance_uid,
    )


def _built(settings: Settings) -> BuiltObject:
    from scp_node.report.objects.trial import build_trial_report  # noqa: PLC0415
    from scp_node.report.site import Site  # noqa: PLC0415

    file = settings.node.data_dir / INSTALLATION_ID
    try:  # before the first start there is none, and this command makes none
        installation = str(installation_id(settings.node.data_dir)) if file.exists() else "not installed yet"
    except (OSError, ValueError) as error:
        raise SettingsError(f"node.data_dir: {file} does not hold an identifier: put it back") from error
    return build_trial_report(Site.of(settings, installation, __version__), utc_now())
