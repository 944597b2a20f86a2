"""A listener on a free loopback port, with lists in place of the registrar."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scp_node.domain import CommitmentAnswer, ReceivedInstance, RejectedInstance, TransferEnded
from scp_node.listener import Listener
from scp_node.settings import Settings
from scp_node.spool import Spool
from tests.scp_node.listener.peer import ASSOCIATE_AC, Peer


@dataclass
class Running:
    """A listener that serves, and all that it has handed on."""

    listener: Listener
    spool: Spool
    received: list[ReceivedInstance] = field(default_factory=list)
    rejected: list[RejectedInstance] = field(default_factory=list)
    ended: list[TransferEnded] = field(default_factory=list)
    answers: list[CommitmentAnswer] = field(default_factory=list)
    takes_answers: list[bool] = field(default_factory=list)  # of the next answers; True when it is empty

    @property
    def address(self) -> tuple[str, int]:
        return self.listener.address

    @property
    def tls_address(self) -> tuple[str, int]:
        return self.listener.tls_address

    @property
    def port(self) -> int:
        return self.address[1]

    def peer(self, **options: Any) -> Peer:
        """Return an associated peer."""
        peer = Peer(self.address)
        assert peer.associate(**options)[0] == ASSOCIATE_AC
        return peer


Start = Callable[..., Running]


@pytest.fixture
def start_listener(tmp_path: Path) -> Iterator[Start]:
    """Start a listener; the arguments are the tables of the settings, and perhaps a spool."""
    with contextlib.ExitStack() as stack:

        def start(spool: Spool | None = None, *, listen: dict[str, Any] | None = None, **tables: Any) -> Running:
            settings = Settings(listen={"port": 0, **(listen or {})}, **tables)
            spool = spool or Spool(tmp_path / "spool", low_water_bytes=0)
            received: list[ReceivedInstance] = []
            rejected: list[RejectedInstance] = []
            ended: list[TransferEnded] = []
            answers: list[CommitmentAnswer] = []
            takes: list[bool] = []

            def on_commitment(answer: CommitmentAnswer) -> bool:
                answers.append(answer)
                return takes.pop(0) if takes else True

            listener = Listener(
                settings,
                spool,
                on_received=received.append,
                on_rejected=rejected.append,
                on_ended=ended.append,
                on_commitment=on_commitment if settings.destinations else None,
            )
            listener.start()
            stack.callback(listener.stop, 2)
            return Running(listener, spool, received, rejected, ended, answers, takes)

        yield start


@pytest.fixture
def running(start_listener: Start) -> Running:
    """A listener with the default settings."""
    return start_listener()
