"""The answer to an N-EVENT-REPORT (PS3.4 section J.3.3): values in, status out; nothing here knows a socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scp_node.dicom.commitment_messages import EventRefusedError, EventRequest, EventStatus, read_event
from scp_node.domain import CommitmentAnswer
from scp_node.listener.text import escaped
from scp_node.runtime.repeated import RepeatedLines


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedEvent:
    """One N-EVENT-REPORT request, and the association it came in."""

    event: EventRequest
    calling_ae: str
    peer: str
    destinations: frozenset[str]  # names of those that the requestor may report for


class CommitmentService:
    """Checks reports and hands them on; safe for many threads."""

    def __init__(self, on_answer: Callable[[CommitmentAnswer], bool], lines: RepeatedLines) -> None:
        """Hand reports to `on_answer`, which must not block, and returns whether it could take one."""
        self._on_answer = on_answer
        self._lines = lines

    def report(self, received: ReceivedEvent) -> EventStatus:
        """Return the answer to a request; Success means that it will be noted, unless this process dies first.

        One that is lost so is asked for again when its time is over.
        """
        try:
            self._hand_on(received)
        except EventRefusedError as refused:
            self._lines.warn(
                "commitment report refused",
                status=f"0x{refused.status:04X}",
                reason=str(refused),
                calling_ae=escaped(received.calling_ae),
                peer=received.peer,
            )
            return refused.status
        return EventStatus.SUCCESS

    def _hand_on(self, received: ReceivedEvent) -> None:
        if not received.destinations:
            raise EventRefusedError(EventStatus.PROCESSING_FAILURE, "peer is none of our destinations")
        report = read_event(received.event)
        if not self._on_answer(CommitmentAnswer(report=report, destinations=received.destinations)):
            raise EventRefusedError(EventStatus.RESOURCE_LIMITATION, "too much waits to be entered")
