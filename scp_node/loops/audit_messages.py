"""Sends the events of the trail to the site's collector, as audit messages, in order."""

from __future__ import annotations

import logging
import time
from typing import Final, Protocol

from scp_node.audit_messages.collector import CollectorError
from scp_node.audit_messages.events import Source, messages_of
from scp_node.audit_messages.message import xml_of
from scp_node.audit_messages.syslog import syslog_message
from scp_node.ledger import FedEvent, Ledger
from scp_node.ledger.trail.feed import BATCH
from scp_node.logs import get_logger

REST_SECONDS: Final = 1.0  # after fewer events than a batch holds: what comes meanwhile goes by one connection
FIRST_PAUSE: Final = 1.0  # seconds before the next try; doubled for each further one
LONGEST_PAUSE: Final = 60.0

log = get_logger(__name__)


class Takes(Protocol):
    """Takes syslog messages; see `Collector`."""

    def send(self, messages: list[bytes], /) -> None:
        """Return when it has read them; raise CollectorError where that is not known."""


class AuditSender:
    """Follows the trail; what the collector does not take is sent again from there."""

    def __init__(self, *, ledger: Ledger, collector: Takes, source: Source, owner: str) -> None:
        """Send to `collector`; `owner` names this process among those of the ledger."""
        self._ledger = ledger
        self._collector = collector
        self._source = source
        self._owner = owner
        self._look_again_at = 0.0  # monotonic
        self._pause = FIRST_PAUSE
        self._is_away = False

    def step(self) -> bool:
        """Send the next events; return whether more may wait."""
        if time.monotonic() < self._look_again_at:
            return False
        events = self._ledger.feed.next(self._owner, with_headers=self._source.patient_names)
        if not events:
            return False
        messages = self._messages(events)
        try:
            if messages:
                self._collector.send(messages)
        except CollectorError as error:
            self._failed(error)
            return False
        self._ledger.feed.taken(self._owner, events)
        self._succeeded()
        if is_last := len(events) < BATCH:
            self._look_again_at = time.monotonic() + REST_SECONDS
        return not is_last

    def close(self) -> None:
        """Let another process go on at once."""
        self._ledger.feed.release(self._owner)

    def _messages(self, events: list[FedEvent]) -> list[bytes]:
        return [
            syslog_message(xml_of(message), at=event.at, host=self._source.machine)
            for event in events
            for message in messages_of(event, self._source)
        ]

    def _failed(self, error: CollectorError) -> None:
        level = logging.DEBUG if self._is_away else logging.WARNING
        log.log(level, "collector does not take audit messages, they wait in the trail", reason=error)
        self._is_away = True
        self._look_again_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _succeeded(self) -> None:
        if self._is_away:
            log.info("collector takes audit messages again")
        self._is_away = False
        self._pause = FIRST_PAUSE
