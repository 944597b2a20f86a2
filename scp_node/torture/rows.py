"""Holds every attack on one SCP in turn, and says how a legitimate C-ECHO fared beside each."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from scp_node.settings import DestinationTlsSettings, is_loopback
from scp_node.torture.attacks import ATTACKS, SUCCESS, Attack, Ending, Titles
from scp_node.torture.swarm import ATTACKERS, NO_ASSOCIATION, Bounds, Endings, Swarm, Target
from scp_node.torture.witness import Echoes, Witness

SLOW_MS: Final = 500.0  # p99 of a C-ECHO, above which an SCP is slow
NOTHING: Final = "nothing"  # the name of the first row: the C-ECHOs alone


class Verdict(StrEnum):
    """What an attack did to the others, the best first."""

    HELD = "held"  # every C-ECHO was answered in time
    SLOW = "slow"  # every C-ECHO was answered, some late
    STARVED = "starved"  # a C-ECHO was not answered
    UNANSWERED = "unanswered"  # a conversation that was over on our side was left without an end
    MISLED = "misled"  # Success was said of what is damaged
    DOWN = "down"  # it did not come back when the attack was over
    NOT_TRIED = "not tried"  # the SCP accepts no association of the attackers


class TortureError(Exception):
    """There is nothing to be seen; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One attack, and what came of it."""

    attack: str
    asked: str
    at_once: int
    opened: int
    endings: Mapping[str, int]
    longest_seconds: float
    echoes: Echoes
    verdict: Verdict

    @property
    def did(self) -> str:
        """Return what the SCP did, such as "300 closed, 20 still open"."""
        return ", ".join(f"{number} {ending}" for ending, number in self.endings.items())

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def target_of(host: str, port: int, titles: Titles, tls: DestinationTlsSettings | None = None) -> Target:
    """Return the SCP at HOST:PORT; an address of this machine is attacked from other addresses of it.

    Raises:
        OSError: the host has no address.
    """
    address = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
    is_ipv4 = ipaddress.ip_address(address).version == 4
    sources = ATTACKERS if is_ipv4 and is_loopback(address) else (None,)
    return Target(address=(address, port), titles=titles, sources=sources, tls=tls)


def attacks_named(names: Collection[str]) -> Sequence[Attack]:
    """Return the attacks of these names; all of them where there are none."""
    return [each for each in ATTACKS if not names or each.name in names]


def number_of(attack: Attack) -> int:
    """Return the place of an attack among all; the first is 1."""
    return 1 + ATTACKS.index(attack)


def rows_of(target: Target, bounds: Bounds, attacks: Sequence[Attack]) -> Iterator[Row]:
    """Yield a row without an attack, and one for each; the last is the one that the SCP does not survive.

    Raises:
        TortureError: no C-ECHO is answered before anything has begun.
    """
    with Witness(target, every_seconds=bounds.echo_every_seconds, patience_seconds=bounds.patience_seconds) as witness:
        first = witness.first()
        if first is None or first.error:
            told = first.error if first else "the program does not start"
            raise TortureError(
                f"a C-ECHO is not answered: {told}. The SCP has to take it in the clear, or by TLS with --tls, and "
                "know the calling AE title (--calling) at our address"
            )
        yield _undisturbed(witness, bounds)
        for attack in attacks:
            row = _row(attack, target.of_attack(number_of(attack)), bounds, witness)
            yield row
            if row.verdict is Verdict.DOWN:
                return


def _undisturbed(witness: Witness, bounds: Bounds) -> Row:
    began = time.monotonic()
    echoes = Echoes.of(witness.echoes(began, began + bounds.seconds))
    return Row(
        attack=NOTHING,
        asked="the C-ECHOs alone",
        at_once=0,
        opened=0,
        endings={},
        longest_seconds=0.0,
        echoes=echoes,
        verdict=_of_echoes(echoes),
    )


def _row(attack: Attack, target: Target, bounds: Bounds, witness: Witness) -> Row:
    began = time.monotonic()
    endings = Swarm(attack, target, bounds).run()
    echoes = Echoes.of(witness.echoes(began, time.monotonic()))
    return Row(
        attack=attack.name,
        asked=attack.asked,
        at_once=attack.at_once,
        opened=endings.opened,
        endings=endings.number,
        longest_seconds=round(endings.longest, 3),
        echoes=echoes,
        verdict=_verdict(attack, endings, echoes) if witness.recovers(bounds.recovery_seconds) else Verdict.DOWN,
    )


def _verdict(attack: Attack, endings: Endings, echoes: Echoes) -> Verdict:
    if attack.associates and all(
        each.startswith(NO_ASSOCIATION) or each == Ending.UNCONNECTED for each in endings.number
    ):
        return Verdict.NOT_TRIED
    if attack.forbids_success and SUCCESS in endings.number:
        return Verdict.MISLED
    if Ending.UNANSWERED in endings.number:
        return Verdict.UNANSWERED
    return _of_echoes(echoes)


def _of_echoes(echoes: Echoes) -> Verdict:
    if echoes.answered < echoes.asked or not echoes.asked:
        return Verdict.STARVED
    return Verdict.SLOW if echoes.p99_ms > SLOW_MS else Verdict.HELD
