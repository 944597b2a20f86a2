"""Serves the application on a socket, in a thread of the role."""

from __future__ import annotations

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
from scp_node.secret_files import refuse_if_others_read
from scp_node.settings import SettingsError, WebSettings
from scp_node.web.connections import TimedProtocol

log = get_logger(__name__)

_PAUSE_SECONDS: Final = 5.0
_START_SECONDS: Final = 30.0
_MOST_HEADER_BYTES: Final = 16_384
_MOST_CONNECTIONS: Final = 200


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


class _Certificate:
    """The two files of a certificate, and which state of them is used."""

    def __init__(self, file: Path, key: Path) -> None:
        """Look at both.

        Raises:
            SettingsError: one is not there, they do not belong together, or others may read the key.
        """
        self.file = file
        self._key = key
        self._used = self._state()
        try:
            self.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except OSError as error:  # ssl.SSLError is one
            told = f"{file}, {key}: {error.strerror or error}"
            if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
                told = f"{key} is not the key of {file}"
            raise SettingsError(f"web.certificate, web.key: {told}") from error

    def has_changed(self) -> bool:
        """Return whether the files are not those that are used."""
        return self._state() != self._used

    def load_into(self, context: ssl.SSLContext) -> None:
        """Have `context` use them from now on.

        Raises:
            OSError: they cannot be read, or do not belong together.
            SettingsError: others may read the key.
        """
        state = self._state()
        refuse_if_others_read(self._key, "web.key")
        context.load_cert_chain(self.file, self._key, password=_no_password)
        self._used = state

    def _state(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_version(each) for each in (self.file, self._key))


def _version(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _no_password() -> str:
    """Answer who asks for the password of the key; without this, OpenSSL would ask on the terminal."""
    return ""


class Server:
    """uvicorn in a thread."""

    def __init__(self, app: FastAPI, settings: WebSettings) -> None:
        """Prepare to serve `app`.

        Raises:
            SettingsError: the certificate or its key cannot be used.
        """
        self._certificate: _Certificate | None = None
        if settings.certificate and settings.key:
            self._certificate = _Certificate(settings.certificate, settings.key)
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
        self._server = uvicorn.Server(config)
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
        if self._certificate is None or self._context is None or not self._certificate.has_changed():
            return False
        try:
            self._certificate.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._certificate.load_into(self._context)
        except (OSError, SettingsError) as error:
            log.warning("new certificate is not used yet", reason=error)
            return False
        log.info("new certificate is used", file=self._certificate.file)
        return True

    def stop(self, seconds: float) -> None:
        """Answer what was asked, and end."""
        self._server.should_exit = True
        if self._thread:
            self._thread.join(seconds)
