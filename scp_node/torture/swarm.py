"""Many connections of one attack at the same time, each opened again when it has ended, within bounds."""

from __future__ import annotations

import itertools
import struct
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from scp_node.settings import DestinationTlsSettings
from scp_node.tls.contexts import ClientTls
from scp_node.torture.attacks import Attack, Ending, NotAssociatedError, Titles
from scp_node.torture.peer import OddAnswerError, Peer

# Addresses of the attackers where the SCP is on this machine. Only the first one asks for associations.
ATTACKERS: Final = ("127.0.{}.2", "127.0.{}.3")  # with the number of the attack

NO_ASSOCIATION: Final = "no association: "

_CONNECT_SECONDS: Final = 5.0  # at most; at the end of the time it is less
_LEAST_CONNECT_SECONDS: Final = 0.2
_JOIN_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The SCP, and the AE titles that are used with it."""

    address: tuple[str, int]
    titles: Titles
    sources: tuple[str | None, ...]  # addresses of the attackers; None: any
    tls: DestinationTlsSettings | None = None  # what all of them speak, if they do

    def of_attack(self, number: int) -> Target:
        """Return it with addresses of this attack alone, so that what one has done is not held against the next."""
        return replace(self, sources=tuple(each and each.format(number) for each in self.sources))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one attack may take."""

    seconds: float
    most: int  # conversations
    seed: int
    echo_every_seconds: float = 0.25  # pynetdicom's own SCP needs 0.15 s of a processor for an association
    patience_seconds: float = 3.0  # for a C-ECHO, from the time when it is due to its response
    recovery_seconds: float = 45.0  # within which the SCP has to answer again; longer than the time-outs of most


@dataclass(frozen=True, slots=True, kw_only=True)
class Endings:
    """How the conversations of one attack ended."""

    number: Mapping[str, int]  # by what the SCP did last
    longest: float  # seconds until the SCP had ended one

    @property
    def opened(self) -> int:
        """Return how many conversations there were."""
        return sum(self.number.values())


class Swarm:
    """One attack on one SCP."""

    def __init__(self, attack: Attack, target: Target, bounds: Bounds) -> None:
        """Prepare it; `run` holds the conversations."""
        self._attack = attack
        self._target = target
        self._bounds = bounds
        self._tls = ClientTls(target.tls, "torture") if target.tls else None
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._peers: set[Peer] = set()  # that are connected now
        self._over = threading.Event()
        self._endings: Counter[str] = Counter()
        self._longest = 0.0
        self._deadline = 0.0  # monotonic

    def run(self) -> Endings:
        """Hold conversations until time or number is over, and return how they ended."""
        slots = [threading.Thread(target=self._repeat, daemon=True) for _ in range(self._attack.at_once)]
        self._deadline = time.monotonic() + self._bounds.seconds
        for slot in slots:
            slot.start()
        for slot in slots:
            slot.join(max(0.0, self._seconds_left))
        self._over.set()
        with self._lock:
            for peer in self._peers:
                peer.cut()
        for slot in slots:
            slot.join(_JOIN_SECONDS)
        with self._lock:
            return Endings(number=dict(self._endings.most_common()), longest=self._longest)

    @property
    def _seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def _repeat(self) -> None:
        while not self._over.is_set() and (number := next(self._numbers)) < self._bounds.most:
            began = time.monotonic()
            ending = self._ending_of(number)
            with self._lock:
                self._endings[ending] += 1
                if ending != Ending.OPEN:
                    self._longest = max(self._longest, time.monotonic() - began)
            self._over.wait(self._attack.pause)

    def _ending_of(self, number: int) -> str:
        sources = self._target.sources[:1] if self._attack.associates else self._target.sources
        patience = max(_LEAST_CONNECT_SECONDS, min(self._seconds_left, _CONNECT_SECONDS))
        try:
            source = sources[number % len(sources)]
            peer = Peer(self._target.address, source=source, seconds=patience, tls=self._tls)
        except OSError:
            return Ending.UNCONNECTED
        peer.wait_at_most(self._attack.seconds)
        with peer:
            with self._lock:
                if self._over.is_set():  # nobody would cut it any more
                    return Ending.OPEN
                self._peers.add(peer)
            try:
                ending = self._converse(peer, number)
            finally:
                with self._lock:
                    self._peers.discard(peer)
            return Ending.OPEN if self._over.is_set() else ending

    def _converse(self, peer: Peer, number: int) -> str:
        random = Random(f"{self._bounds.seed} {self._attack.name} {number}")  # noqa: S311 - a run can be repeated
        try:
            return self._attack.conversation(peer, self._target.titles, random)
        except NotAssociatedError as error:
            return f"{NO_ASSOCIATION}{error}"
        except TimeoutError:
            return Ending.UNANSWERED
        except OSError:
            return Ending.CLOSED
        except (OddAnswerError, struct.error):
            return Ending.ODD
