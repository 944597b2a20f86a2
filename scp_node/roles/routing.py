"""Chooses the destinations of a report, and what each gets beside it."""

from __future__ import annotations

from scp_node.ledger import StudySnapshot, Takes
from scp_node.logs import get_logger
from scp_node.settings import Settings

log = get_logger(__name__)


def route(settings: Settings, snapshot: StudySnapshot) -> list[str]:
    """Return the names of the destinations that get the report of this study."""
    reply_to = settings.routing.reply_to
    if isinstance(reply_to, list):
        return list(reply_to)
    if reply_to == "all":
        return [entry.name for entry in settings.destinations]
    names = [entry.name for entry in settings.destinations if entry.ae_title in snapshot.calling_aes]
    if not names:
        log.warning("no destination has the AE title that sent the study", calling_ae=sorted(snapshot.calling_aes))
    return names


def taken(settings: Settings) -> Takes:
    """Return the function that says whether a destination gets a kind of object, by `accepts` of its entry."""
    accepted = {entry.name: frozenset[str](entry.accepts) for entry in settings.destinations}
    return lambda name, kind: kind in accepted[name]
