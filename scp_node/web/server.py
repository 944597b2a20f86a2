"""Serves the application on a socket, in a thread of the role."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI

from scp_node.logs import get_logger
from scp_node.settings import SettingsError, WebSettings
from scp_node.tls.certificates import Renewal, load_pair
from scp_node.web.connections import TimedProtocol

log = get_logger(__name__)

_PAUSE_SECONDS: Final = 5.0
_START_SECONDS: Final = 30.0
_MOST_HEADER_BYTES: Final = 16_384
_MOST_CONNECTIONS: Final = 200
_TICK_SECONDS: Final = 1.0  # how exactly the header Date tells the time


def open_socket(
    settings: WebSettings, stop: threading.Event, *, renew: Callable[[], None] = lambda: None
) -> socket.socket | None:
    """Return the listening socket, as soon as the port is free; None if `stop` was set first.

    `renew` is called before each try, every five seconds.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    is_first = True
    while not stop.is_set():
        renew()
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((settings.host, settings.port))
            listening.listen(128)
        except OSError as error:
            listening.close()
            level = logging.ERROR if is_first else logging.DEBUG
            host, port = settings.host, settings.port
            log.log(level, "web page cannot listen, will be retried", host=host, port=port, reason=error.strerror)
            is_first = False
            stop.wait(_PAUSE_SECONDS)
        else:
            return listening
    return None


class _Uvicorn(uvicorn.Server):
    """uvicorn without its ten looks a second at whether it is to end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        """Tell the time in each answer, until `end`."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):  # 0: the time is told anew
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), _TICK_SECONDS)

    def end(self) -> None:
        """Answer what was asked, and end; for any thread."""
        self.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._told.set)


class Server:
    """uvicorn in a thread."""

    def __init__(self, app: FastAPI, settings: WebSettings) -> None:
        """Prepare to serve `app`.

        Raises:
            SettingsError: the certificate or its key cannot be used.
        """
        self._pair = (settings.certificate, settings.key)
        self._context: ssl.SSLContext | None = None
        self._renewal = Renewal(self._pair, self._load, section="web")
        config = uvicorn.Config(
            app,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.key,
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,  # the guard reads them
            h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=5,
            http=TimedProtocol,
            ws="none",
            loop="asyncio",
        )
        try:
            config.load()
        except OSError as error:  # ssl.SSLError is one
            raise SettingsError(f"web.certificate, web.key: {error.strerror or error}") from error
        if config.ssl:
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context = config.ssl
        self._server = _Uvicorn(config)
        self._thread: threading.Thread | None = None

    def start(self, listening: socket.socket) -> None:
        """Serve on this socket until `stop`."""
        run = self._server.run
        self._thread = threading.Thread(target=run, kwargs={"sockets": [listening]}, name="web", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def renew_certificate(self) -> bool:
        """Use the files of the certificate for new connections where they have changed; return whether they had.

        A pair that does not fit is left until it does: whoever renews it writes one file after the other.
        """
        return self._renewal.renew()

    def _load(self) -> None:
        _check_pair(*self._pair)  # what is half loaded into the context that is used would break it
        if self._context is not None:
            _check_pair(*self._pair, self._context)

    def stop(self, seconds: float) -> None:
        """Answer what was asked, and end."""
        self._server.end()
        if self._thread:
            self._thread.join(seconds)


def _check_pair(certificate: Path | None, key: Path | None, context: ssl.SSLContext | None = None) -> None:
    """Load a certificate and its key, where there are any, into `context` or one that is thrown away.

    Raises:
        SettingsError: they cannot be used.
    """
    if certificate and key:
        load_pair(context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key, "web")
