"""A destination reports on an association of its own: who may, in which role, and with which answer."""

from __future__ import annotations

import random
import struct
import threading
from collections.abc import Callable, Collection
from typing import Any, Final

import pytest

from scp_node.domain import LARGEST_REPORT, LARGEST_REQUEST, Reference
from scp_node.listener import policy
from scp_node.settings import DestinationSettings, PeerSettings
from tests.scp_node.events import EXPLICIT, MISSING, SR, event
from tests.scp_node.listener.conftest import Running, Start
from tests.scp_node.listener.datasets import nested, radiograph
from tests.scp_node.listener.peer import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    COMMAND_FIELD,
    DATASET_TYPE,
    DX,
    EVENT_TYPE,
    IMPLICIT,
    MESSAGE_ID,
    N_ACTION_RQ,
    NO_DATASET,
    PUSH_MODEL,
    SOP_CLASS,
    SOP_INSTANCE,
    VERIFICATION,
    Peer,
    encoded_command,
)
from tests.waiting import wait_until

CONTEXTS: Final = [(PUSH_MODEL, [EXPLICIT]), (DX, [EXPLICIT]), (VERIFICATION, [IMPLICIT])]
PACS: Final = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}
AS_SCP: Final = [(PUSH_MODEL, 0, 1)]
NO_PEERS: Final[list[dict[str, str]]] = [{"ae_title": "MODALITY1", "address": "127.0.0.9"}]


@pytest.fixture
def running(start_listener: Start) -> Running:
    """A listener whose one destination is not a peer."""
    return start_listener(peers=NO_PEERS, destinations=[PACS])


def destination(running: Running, **options: Any) -> Peer:
    return running.peer(**{"contexts": CONTEXTS, "calling": "PACS", "roles": AS_SCP, **options})


def test_a_destination_reports_in_the_role_of_the_scp_and_what_it_says_is_handed_on(running: Running) -> None:
    with destination(running) as peer:
        assert (peer.results[1], peer.roles) == (0, {PUSH_MODEL: (0, 1)})
        assert peer.event(event(("1.2.3",))).status == 0x0000
        assert peer.event(event(("1.2.4",), {"1.2.5": MISSING}), {EVENT_TYPE: 2}).status == 0x0000
        assert peer.echo().status == 0x0000
    first, second = running.answers
    assert first.destinations == {"pacs"}
    assert first.report.transaction_uid == "2.25.7"
    assert first.report.committed == {Reference(sop_class_uid=SR, sop_instance_uid="1.2.3")}
    assert second.report.committed == {Reference(sop_class_uid=SR, sop_instance_uid="1.2.4")}
    assert second.report.failed == {Reference(sop_class_uid=SR, sop_instance_uid="1.2.5"): MISSING}


def test_a_destination_that_is_no_peer_cannot_store(running: Running) -> None:
    with destination(running) as peer:
        assert peer.store(radiograph(), context=3).status == 0x0124
    assert not list(running.spool.paths())


@pytest.mark.parametrize(
    ("roles", "result"),
    [([(PUSH_MODEL, 1, 1)], 0), ([], 0), ([(PUSH_MODEL, 1, 0)], 1), ([(PUSH_MODEL, 0, 0)], 1)],
    ids=["both roles", "no proposal", "SCU only", "no role"],
)
def test_nobody_is_accepted_as_scu_of_storage_commitment(
    running: Running, roles: list[tuple[str, int, int]], result: int
) -> None:
    with destination(running, roles=roles) as peer:
        assert peer.results[1] == result
        assert peer.roles in ({}, {PUSH_MODEL: (0, 1)})
        if result == 0:
            assert peer.event(event()).status == 0x0000


def test_a_request_for_commitment_from_us_ends_the_association(running: Running) -> None:
    with destination(running, roles=[]) as peer:
        elements = {
            0x0003: PUSH_MODEL,
            COMMAND_FIELD: N_ACTION_RQ,
            MESSAGE_ID: 1,
            DATASET_TYPE: NO_DATASET,
            0x1001: PUSH_MODEL + ".1",
            0x1008: 1,
        }
        peer.send_pdv(1, encoded_command(elements), is_command=True)
        assert peer.is_closed()


@pytest.mark.parametrize(("calling", "source"), [("PACS", "127.0.0.2"), ("pacs", "127.0.0.1"), ("OTHER", "127.0.0.1")])
def test_the_ae_title_of_a_destination_counts_only_at_its_address(running: Running, calling: str, source: str) -> None:
    with Peer(running.address, source=source) as peer:
        assert peer.associate(CONTEXTS, calling=calling, roles=AS_SCP)[0] == ASSOCIATE_RJ


def test_a_pacs_of_several_machines_may_report_from_any_that_is_a_peer(start_listener: Start) -> None:
    running = start_listener(peers=[{"ae_title": "PACS", "address": "127.0.0.2"}], destinations=[PACS])
    with Peer(running.address, source="127.0.0.2") as peer:
        assert peer.associate(CONTEXTS, calling="PACS", roles=AS_SCP)[0] == ASSOCIATE_AC
        assert peer.event(event()).status == 0x0000
    assert [answer.destinations for answer in running.answers] == [{"pacs"}]


def test_a_modality_cannot_report_for_a_destination(start_listener: Start) -> None:
    running = start_listener(peers=[{"ae_title": "MODALITY1", "address": "127.0.0.1"}], destinations=[PACS])
    with running.peer(contexts=CONTEXTS, calling="MODALITY1", roles=AS_SCP) as peer:
        assert peer.event(event()).status == 0x0110
        assert peer.store(radiograph(), context=3).status == 0x0000
    assert running.answers == []


@pytest.mark.parametrize("entry", [None, {**PACS, "commitment": False}], ids=["no destination", "not asked"])
def test_where_nothing_is_asked_for_nothing_may_be_reported(
    start_listener: Start, entry: dict[str, Any] | None
) -> None:
    running = start_listener(destinations=[entry] if entry else [])
    with running.peer(contexts=CONTEXTS, calling="PACS", roles=AS_SCP) as peer:
        if entry is None:
            assert peer.results[1] == 3
        else:
            assert peer.event(event()).status == 0x0110
    assert running.answers == []


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ({SOP_CLASS: "1.2.840.10008.1.20.2"}, 0x0118),
        ({SOP_CLASS: None}, 0x0118),
        ({SOP_INSTANCE: "1.2.3"}, 0x0112),
        ({SOP_INSTANCE: "../../etc/passwd"}, 0x0112),
        ({SOP_INSTANCE: None}, 0x0112),
        ({EVENT_TYPE: 3}, 0x0113),
        ({EVENT_TYPE: None}, 0x0113),
    ],
)
def test_a_command_that_is_no_commitment_report_is_refused(
    running: Running, command: dict[int, object], status: int
) -> None:
    with destination(running) as peer:
        assert peer.event(event(), command).status == status
        assert peer.event(event()).status == 0x0000
    assert len(running.answers) == 1


def many(number: int) -> tuple[str, ...]:
    return tuple(f"1.2.{index}" for index in range(number))


@pytest.mark.parametrize(
    ("information", "status"),
    [
        (None, 0x0115),
        (b"", 0x0115),
        (b"\0" * 100, 0x0115),
        (event()[:-3], 0x0115),
        (event(transaction_uid=""), 0x0115),
        (event(transaction_uid="2.25.1\\2.25.2"), 0x0115),
        (event(("not a UID",)), 0x0115),
        (event((), {"1.2.3": None}), 0x0115),
        (event((), {"1.2.3": MISSING}), 0x0115),  # failures in a report of success
        (event(many(LARGEST_REQUEST + 1)), 0x0115),
        (nested(60_000), 0x0213),
        (nested(500), 0x0115),
        (event()[:-8] + struct.pack("<HH2s2xL", 0x0009, 0x1000, b"OB", 0xFFFF_FFF0), 0x0115),
        (bytes(LARGEST_REPORT + 1), 0x0213),
    ],
    ids=[
        "none",
        "empty",
        "zeros",
        "cut off",
        "no UID",
        "two UIDs",
        "no UID of an instance",
        "no reason",
        "mixed",
        "more than asked for",
        "long and deep",
        "deep",
        "huge length",
        "too long",
    ],
)
def test_a_report_that_is_not_well_formed_is_refused_and_the_association_lives(
    running: Running, information: bytes | None, status: int
) -> None:
    with destination(running) as peer:
        assert peer.event(information).status == status
        assert peer.event(event(many(LARGEST_REQUEST))).status == 0x0000
    assert len(running.answers) == 1


def test_a_report_with_any_bytes_changed_is_answered_or_ends_its_own_association_only(running: Running) -> None:
    randomness = random.Random(7)
    sound = event(("1.2.3", "1.2.4"), {"1.2.5": MISSING})
    with destination(running) as peer:
        for _ in range(150):
            damaged = bytearray(sound)
            for _ in range(randomness.randint(1, 8)):
                damaged[randomness.randrange(len(damaged))] = randomness.randrange(256)
            assert peer.event(bytes(damaged), {EVENT_TYPE: 2}).status in (0x0000, 0x0115)
        assert peer.event(sound, {EVENT_TYPE: 2}).status == 0x0000


def test_a_report_that_cannot_be_noted_now_is_refused_so_that_it_comes_again(running: Running) -> None:
    running.takes_answers.append(False)
    with destination(running) as peer:
        assert [peer.event(event()).status for _ in range(2)] == [0x0213, 0x0000]


def test_reports_wait_their_turn_and_start_no_threads(running: Running) -> None:
    with destination(running) as peer:
        assert peer.echo().status == 0x0000
        before = threading.active_count()
        for _ in range(20):
            assert peer.event(event()).status == 0x0000
            assert threading.active_count() <= before
        peer.release()
    [server] = running.listener._servers
    wait_until(lambda: not server.associations())
    assert len(running.answers) == 20


def sources(host: str, resolve: Callable[[str], Collection[str]]) -> policy.Sources:
    entry = DestinationSettings(name="pacs", ae_title="PACS", host=host)
    return policy.Sources([entry], policy.Peers([PeerSettings(ae_title="CR1", address="10.0.0.9")]), resolve)


def test_a_destination_with_a_name_is_known_at_the_addresses_of_that_name() -> None:
    known = sources("pacs.example", {"pacs.example": {"10.0.0.1", "fd00::1"}}.__getitem__)
    assert (
        known.names(policy.Caller(calling_ae="PACS", peer="10.0.0.1"))
        == known.names(policy.Caller(calling_ae="PACS", peer="::ffff:10.0.0.1"))
        == {"pacs"}
    )
    assert known.names(policy.Caller(calling_ae="PACS", peer="fd00::1")) == {"pacs"}
    assert (
        known.names(policy.Caller(calling_ae="PACS", peer="10.0.0.2"))
        == known.names(policy.Caller(calling_ae="OTHER", peer="10.0.0.1"))
        == frozenset()
    )


@pytest.mark.parametrize(("title", "names"), [("PACS", {"pacs"}), ("*", set())])
def test_a_peer_is_the_destination_whose_title_it_has_and_not_every_one(title: str, names: set[str]) -> None:
    entry = DestinationSettings(name="pacs", ae_title="PACS", host="10.0.0.1")
    peers = policy.Peers([PeerSettings(ae_title=title, address="10.0.0.0/8")])
    known = policy.Sources([entry], peers, lambda host: {host})
    assert known.names(policy.Caller(calling_ae="PACS", peer="10.0.0.7")) == names
    assert known.names(policy.Caller(calling_ae="PACS", peer="10.0.0.1")) == {"pacs"}


def test_a_name_that_is_not_known_is_nobody() -> None:
    assert (
        sources("no-such-host.invalid", policy.resolved).names(policy.Caller(calling_ae="PACS", peer="127.0.0.1"))
        == frozenset()
    )
    assert "127.0.0.1" in policy.resolved("127.0.0.1")
