"""What an examination says of one thing, and the one of a destination: it needs no model and no database."""

from __future__ import annotations

from dataclasses import dataclass

from scp_node.cli.contact import Call, is_this_node, why
from scp_node.delivery.echo import echo_destination
from scp_node.settings import DestinationSettings, Settings, SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """One thing that was looked at."""

    name: str
    good: bool
    message: str

    def document(self) -> dict[str, str | bool]:
        """Return it ready for JSON."""
        return {"name": self.name, "good": self.good, "message": self.message}


def examine_destination(settings: Settings, destination: DestinationSettings) -> Examination:
    """Return whether a destination answers a C-ECHO and accepts reports, and what to change where it does not."""
    name, setting = f"destination {destination.name}", f"in [[destinations]] {destination.name}"
    call = Call(
        host=destination.host,
        port=destination.port,
        called=destination.ae_title,
        calling=settings.node.ae_title,
        called_set_by=f"ae_title {setting}",
        calling_set_by="node.ae_title",
        address_set_by=f"host and port {setting}",
        tls_set_by=f"its [destinations.tls] {setting}",
        reachable_at=settings.listen.port if destination.commitment else None,
    )
    if is_this_node(settings, destination):
        told = f"is the port of this node itself: give address and port of the PACS (host and port {setting})"
        return Examination(name=name, good=False, message=f"{call.where} {told}")
    try:
        answer = echo_destination(settings, destination)
    except SettingsError as error:
        return Examination(name=name, good=False, message=str(error))
    if answer.error:
        return Examination(name=name, good=False, message=f"{call.where}: {why(answer.error, call)}")
    if answer.status != 0:
        told = f"answers C-ECHO with status 0x{answer.status or 0:04X}: see its log"
        return Examination(name=name, good=False, message=f"{call.where} {told}")
    if not answer.takes_reports:
        told = (
            "answers C-ECHO, but accepts none of the SOP classes of report.sop_classes: have it accept Structured "
            "Reports, or name the right destination"
        )
        return Examination(name=name, good=False, message=f"{call.where} {told}")
    most = destination.associations
    told = "answers C-ECHO and accepts reports" + (f", by {most} associations at most" if most > 1 else "")
    return Examination(name=name, good=True, message=f"{call.where} {told}")
