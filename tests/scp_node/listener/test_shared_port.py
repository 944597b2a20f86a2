"""Several listeners on one port: each keeps its part of the limits, and together they never exceed them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import Any, Final

import pytest
from pydantic import ValidationError

from scp_node.listener import ListenError
from scp_node.listener import connections as limits
from scp_node.listener.association import NodeAssociation
from scp_node.listener.connections import OpenConnection, refusal_of
from scp_node.listener.waiting import PLACES, PLACES_OF_ONE
from scp_node.loops.register import REFUSALS, REMEMBERED, REMEMBERED_BYTES
from scp_node.settings import ListenSettings
from tests.scp_node.listener.conftest import Running, Start
from tests.scp_node.listener.peer import ABORT, ASSOCIATE_AC, CLOSED, Peer
from tests.servers import free_port
from tests.waiting import wait_until

TRIES: Final = 64  # connections; that all of them fall to one of two listeners happens once in 10^19 times
MOST_PROCESSES: Final = 4


def start_two(start_listener: Start, **listen: Any) -> tuple[Running, Running]:
    shared = {"port": free_port(), "processes": 2, **listen}
    return start_listener(listen=shared), start_listener(listen=shared)


def associations_of(running: Running) -> list[NodeAssociation]:
    found = (thread for thread in threading.enumerate() if isinstance(thread, NodeAssociation))
    return [each for each in found if each.node_server.services is running.listener._services]


def test_two_listeners_on_a_port_share_what_comes(start_listener: Start) -> None:
    one, two = start_two(start_listener)
    with contextlib.ExitStack() as stack:
        for _ in range(TRIES // 4):
            assert stack.enter_context(Peer(one.address)).associate()[0] == ASSOCIATE_AC
        served = [len(associations_of(each)) for each in (one, two)]
    assert sum(served) == TRIES // 4
    assert min(served) > 0


@pytest.mark.parametrize(
    ("allowed", "most"),
    [
        ({"max_associations": 7, "max_associations_per_address": 48}, 6),
        ({"max_associations": 64, "max_associations_per_address": 5}, 4),
    ],
    ids=["in all", "of one address"],
)
def test_all_together_admit_no_more_associations_than_the_settings_say(
    start_listener: Start, allowed: Mapping[str, int], most: int
) -> None:
    one, two = start_two(start_listener, **allowed)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(one.address)) for _ in range(TRIES)]
        assert sum(peer.associate()[0] == ASSOCIATE_AC for peer in peers) == most
        admitted = [sum(association.admitted for association in associations_of(each)) for each in (one, two)]
        assert admitted == [most // 2, most // 2]


def test_silent_connections_of_one_address_have_no_more_threads_than_with_one_listener(start_listener: Start) -> None:
    one, two = start_two(start_listener)
    with contextlib.ExitStack() as stack:
        for _ in range(TRIES):
            stack.enter_context(Peer(one.address))
        part = limits.UNDECIDED_OF_ONE // 2
        wait_until(lambda: [len(associations_of(each)) for each in (one, two)] == [part, part])
        assert stack.enter_context(Peer(one.address)).associate()[0] == ASSOCIATE_AC  # it is let in once it asks


def test_connections_of_one_address_that_may_fail_are_as_many_as_with_one_listener(start_listener: Start) -> None:
    allowed = 8
    one, two = start_two(start_listener, failed_connections_per_minute=allowed)
    stranger = "127.0.0.3"
    answered = 0
    for _ in range(TRIES):
        with Peer(one.address, source=stranger) as peer:
            peer.send_raw(b"GET / HTTP/1.1\r\n\r\n")
            answered += peer.receive()[0] == ABORT
        wait_until(lambda: not associations_of(one) and not associations_of(two))
    assert answered == allowed
    with Peer(one.address, source=stranger) as peer:
        assert peer.receive()[0] == CLOSED
    with Peer(one.address) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC


@pytest.mark.parametrize("processes", range(1, MOST_PROCESSES + 1))
def test_the_parts_of_a_limit_are_never_more_than_the_limit(processes: int) -> None:
    listen = ListenSettings(processes=processes)
    part = listen.of_one_process()
    assert part.processes == processes
    for name in ("max_associations", "max_associations_per_address", "failed_connections_per_minute"):
        assert 0 < getattr(part, name) * processes <= getattr(listen, name)


@pytest.mark.parametrize(
    "limit",
    [
        limits.STRANGERS,
        limits.OF_ONE_STRANGER,
        limits.UNDECIDED_OF_ONE,
        limits.KEPT_FOR_OTHERS,
        limits.SPARE_CONNECTIONS,
        PLACES,
        PLACES_OF_ONE,
        REFUSALS,
        REMEMBERED,
        REMEMBERED_BYTES,
    ],
)
def test_of_what_is_not_set_each_process_has_a_part(limit: int) -> None:
    assert limit >= MOST_PROCESSES


@pytest.mark.parametrize(("processes", "strangers"), [(1, 4), (2, 2), (4, 1)])
def test_a_stranger_has_as_many_connections_as_with_one_listener(processes: int, strangers: int) -> None:
    open_ones: list[OpenConnection] = []
    while not refusal_of("10.9.0.1", open_ones, is_known=False, most=64, processes=processes):
        open_ones.append(OpenConnection("10.9.0.1", is_known=False))
    assert len(open_ones) == strangers


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"processes": 5}, "less than or equal to 4"),
        ({"processes": 2, "port": 0}, "with port = 0 each would take another port"),
        ({"processes": 2, "max_associations": 1}, "2 cannot share max_associations = 1"),
        ({"processes": 3, "max_associations_per_address": 2}, "3 cannot share max_associations_per_address = 2"),
        ({"processes": 2, "failed_connections_per_minute": 1}, "2 cannot share failed_connections_per_minute = 1"),
    ],
)
def test_a_number_of_processes_that_cannot_work_is_named(table: dict[str, int], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ListenSettings.model_validate(table)


def test_any_number_of_failed_connections_may_be_allowed_to_several() -> None:
    listen = ListenSettings(processes=2, failed_connections_per_minute=0)
    assert listen.of_one_process().failed_connections_per_minute == 0


def test_a_port_of_one_listener_is_shared_with_nobody(start_listener: Start) -> None:
    alone = start_listener()
    with pytest.raises(ListenError, match="cannot listen"):
        start_listener(listen={"port": alone.port, "processes": 2})
