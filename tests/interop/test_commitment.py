"""A real Orthanc commits itself to what it was sent, lacks it and gets it again, or shows it to a C-FIND."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.node import Node, destination, radiograph
from tests.servers import Orthanc, free_port
from tests.waiting import wait_until

pytestmark = pytest.mark.needs("Orthanc")

QUICK: Final = {"commit_after_seconds": 0, "commit_answer_seconds": 0.5, "commit_wait_seconds": 2}
StartOrthanc = Callable[..., Orthanc]
StartNode = Callable[..., Node]


def pair(
    start_orthanc: StartOrthanc, start_node: StartNode, *, knows_us: bool = True, **changes: Any
) -> tuple[Orthanc, Node]:
    """Start an Orthanc and a node that know each other by AE title and port."""
    port = free_port()
    orthanc = start_orthanc(modalities={"node": ("PNEUMONIA" if knows_us else "OTHER", port)})
    entry = destination(orthanc.port, ae_title=orthanc.ae_title, **changes.pop("destination", {"commitment": True}))
    delivery = {"retry_first_seconds": 0.2, "retry_cap_seconds": 0.5, "probe_seconds": 0.5, **QUICK}
    node = start_node(
        destinations=[entry],
        listen={"port": port, "low_water_mib": 0},
        delivery=delivery | changes.pop("delivery", {}),
        **changes,
    )
    return orthanc, node


def states(node: Node) -> set[str]:
    return {sent["state"] for row in node.audit() for sent in row["deliveries"]}


def kinds(node: Node, seed: int = 1) -> list[str]:
    return [event.kind for event in node.ledger.audit.events(radiograph(seed).StudyInstanceUID)]


def test_reports_and_pictures_end_as_committed_in_the_audit(start_orthanc: StartOrthanc, start_node: StartNode) -> None:
    orthanc, node = pair(start_orthanc, start_node, report={"overlay": "all"})
    assert node.send(*[radiograph(seed) for seed in range(3)]) == [0, 0, 0]
    rows = node.run_until_idle(3)
    assert [[sent["state"] for sent in row["deliveries"]] for row in rows] == [["committed"] * 2] * 3
    assert all(sent["committed_at"] >= sent["at"] for row in rows for sent in row["deliveries"])
    told = kinds(node)
    assert told.index("delivered") < told.index("commitment-requested") < told.index("committed")
    assert len(orthanc.instances()) == 6


def test_a_report_that_vanished_from_the_pacs_before_it_was_asked_is_sent_again_and_then_committed(
    start_orthanc: StartOrthanc, start_node: StartNode
) -> None:
    orthanc, node = pair(start_orthanc, start_node, delivery={"commit_after_seconds": 3})
    node.send(radiograph())
    [first] = orthanc.wait_until(lambda pacs: pacs.instances(), 60)
    wait_until(lambda: states(node) == {"delivered"}, 10)
    orthanc.request("DELETE", f"/instances/{first}")
    [row] = node.run_until_idle(1)
    assert [(sent["state"], sent["attempts"]) for sent in row["deliveries"]] == [("committed", 2)]
    told = kinds(node)
    assert [told.count(kind) for kind in ("delivered", "not-committed", "committed")] == [2, 1, 1]
    assert "sent again" in node.log
    [report] = orthanc.reports()
    assert report.SOPInstanceUID == row["report_uid"]


def test_a_pacs_that_promises_nothing_is_looked_into_by_c_find(
    start_orthanc: StartOrthanc, start_node: StartNode
) -> None:
    _, node = pair(start_orthanc, start_node, destination={"commitment": False, "find": True})
    node.send(radiograph(), radiograph(2))
    rows = node.run_until_idle(2)
    assert [sent["state"] for row in rows for sent in row["deliveries"]] == ["found", "found"]


def test_a_report_that_c_find_does_not_show_is_sent_again_and_then_found(
    start_orthanc: StartOrthanc, start_node: StartNode
) -> None:
    orthanc, node = pair(
        start_orthanc,
        start_node,
        destination={"commitment": False, "find": True},
        delivery={"commit_after_seconds": 3},
    )
    node.send(radiograph())
    [first] = orthanc.wait_until(lambda pacs: pacs.instances(), 60)
    wait_until(lambda: states(node) == {"delivered"}, 10)
    orthanc.request("DELETE", f"/instances/{first}")
    [row] = node.run_until_idle(1)
    assert [(sent["state"], sent["attempts"]) for sent in row["deliveries"]] == [("found", 2)]
    assert len(orthanc.reports()) == 1


def test_a_pacs_that_does_not_know_us_leaves_the_report_delivered_and_an_alarm(
    start_orthanc: StartOrthanc, start_node: StartNode
) -> None:
    _, node = pair(
        start_orthanc, start_node, knows_us=False, delivery={"commit_wait_seconds": 0.2, "commit_attempts": 2}
    )
    node.send(radiograph())
    node.run_until_idle(1)
    assert states(node) == {"delivered"}
    assert node.ledger.upkeep.counts()["commit:pacs"] == {"dead": 1}
    assert "commitment given up" in node.log
    assert [kinds(node).count(kind) for kind in ("delivered", "commitment-requested", "committed")] == [1, 2, 0]
