"""One connection of a browser or script: uvicorn's, with a limit on the time in which a request has to come."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from scp_node.logs import get_logger

log = get_logger(__name__)

_STILL_COMING: Final = (h11.IDLE, h11.SEND_BODY)


class TimedProtocol(H11Protocol):
    """Closes a connection whose next request is not there as a whole within `request_seconds`.

    uvicorn waits for ever, and whoever sends a byte now and then would hold one of its connections for ever.
    """

    request_seconds: ClassVar[float] = 30.0
    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.conn.their_state not in _STILL_COMING:
            self._stop()
        elif self._limit is None:
            self._limit = self.loop.call_later(self.request_seconds, self._close)

    def _stop(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            log.info("web connection closed, its request did not come in time", peer=(self.client or ("",))[0])
            self.transport.close()
