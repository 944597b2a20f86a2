"""The server of the page: a request comes in time, or its connection is closed."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request

from scp_node.settings import WebSettings
from scp_node.web.connections import TimedProtocol
from scp_node.web.server import Server


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch, free_port: int) -> Iterator[int]:
    """A server that waits half a second for a request."""
    monkeypatch.setattr(TimedProtocol, "request_seconds", 0.5)
    app = FastAPI()

    @app.get("/slow")
    def slow() -> str:
        time.sleep(1.2)
        return "done"

    @app.post("/form")
    async def form(request: Request) -> int:
        return len(await request.body())

    server = Server(app, WebSettings())
    with socket.create_server(("127.0.0.1", free_port)) as listening:
        server.start(listening)
        yield free_port
        server.stop(10)


def closed(connection: socket.socket) -> bool:
    """Return whether the server closes this connection, within ten seconds."""
    connection.settimeout(10)
    return connection.recv(100) == b""


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET /slow HTTP/1.1\r\nHost: a", b"POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"],
    ids=["nothing", "half a header", "half a body"],
)
def test_a_request_that_does_not_come_is_not_waited_for(port: int, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(begun)
        assert closed(connection)


def test_a_byte_now_and_then_does_not_hold_a_connection(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nX-Long: ")
        connection.settimeout(0.1)
        for _ in range(100):
            try:
                ended = connection.recv(1) == b""
            except TimeoutError:
                ended = False
            except ConnectionResetError:
                ended = True
            if ended:
                return
            connection.sendall(b"x")
        pytest.fail("the connection was held for ten seconds")


def test_an_answer_may_take_longer_than_a_request_and_the_next_request_is_taken(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(2):
        connection.request("GET", "/slow")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b'"done"')
    connection.request("POST", "/form", body=b"123456789")
    assert connection.getresponse().read() == b"9"
    connection.close()


def test_the_end_of_the_server_waits_for_no_tick(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setattr("scp_node.web.server._TICK_SECONDS", 3_600.0)
    server = Server(FastAPI(), WebSettings())
    with socket.create_server(("127.0.0.1", free_port)) as listening:
        server.start(listening)
        server.stop(30)
    assert "web" not in {thread.name for thread in threading.enumerate()}
