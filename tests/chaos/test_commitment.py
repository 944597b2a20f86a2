"""Nothing is called committed that was not promised, and nothing that was lost stays lost, whatever a PACS answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.chaos.conftest import Chaos
from tests.chaos.kit.committing_pacs import CommittingPacs
from tests.node import Node, destination, radiograph
from tests.servers import free_port
from tests.waiting import let_pass, wait_until


def test_a_report_is_committed_exactly_where_the_pacs_promised_it_whatever_else_it_says_and_though_the_node_is_killed(
    chaos: Chaos, database: dict[str, Any], tmp_path: Path
) -> None:
    images, kills = chaos.amount(short=5, long=60), chaos.amount(short=1, long=8)
    port = free_port()
    with CommittingPacs(port, chaos.random).serving() as pacs:
        node = Node(tmp_path, _settings(pacs, port, database))
        try:
            node.start()
            for kill in range(kills):
                share = range(kill * images // kills, (kill + 1) * images // kills)
                assert set(node.send(*[radiograph(seed) for seed in share])) == {0}
                known = len(pacs.held)
                wait_until(lambda known=known: len(pacs.held) > known or pacs.lost, 60)  # type: ignore[misc]
                let_pass(chaos.random.uniform(0, 1))
                node.kill()
                node.start()
            rows = node.run_until_idle(images, timeout=chaos.amount(short=90, long=600))
        finally:
            node.end()
    sent = [delivery for row in rows for delivery in row["deliveries"]]
    committed = {delivery["sop_instance_uid"] for delivery in sent if delivery["state"] == "committed"}
    assert {delivery["state"] for delivery in sent} == {"committed"}, sent
    assert committed <= pacs.promised
    assert committed == set(pacs.held)
    chaos.figure(
        f"{len(rows)} studies, {kills} kill -9, {sum(pacs.asked.values())} questions about {len(committed)} objects "
        f"answered in {len(pacs.behaviours)} ways ({_told(pacs)}): {sum(pacs.lost.values())} objects lost by the PACS, "
        f"all sent again; {len(committed)} committed, 0 committed without a promise"
    )


def test_a_pacs_that_never_keeps_an_object_gets_it_a_few_times_and_then_there_is_an_alarm(
    chaos: Chaos, tmp_path: Path
) -> None:
    port = free_port()
    with _Forgetful(port, chaos.random).serving() as pacs:
        node = Node(tmp_path, _settings(pacs, port, {}, commit_attempts=3))
        try:
            node.start()
            node.send(radiograph())
            [row] = node.run_until_idle(1)
            [delivery] = row["deliveries"]
            assert (delivery["state"], delivery["attempts"]) == ("dead", 3)
            assert "report not committed, given up" in node.log
            pacs.forgets = False
            assert node.ledger.upkeep.requeue(row["report_uid"]) == 1
            [row] = node.run_until_idle(1)
        finally:
            node.end()
    assert [delivery["state"] for delivery in row["deliveries"]] == ["committed"]
    chaos.figure(
        f"an object that the PACS lost 3 times is a dead letter; put back, committed (sent {pacs.total} times)"
    )


class _Forgetful(CommittingPacs):
    """Loses everything right before it is asked."""

    forgets = True

    @property
    def total(self) -> int:
        return sum(self.sent.values())

    def _act(self, event: Any) -> tuple[int, None]:
        if self.forgets:
            self.held.clear()
        self.answer_later(event, "other association")
        return 0x0000, None


def _settings(pacs: CommittingPacs, port: int, database: dict[str, Any], commit_attempts: int = 20) -> dict[str, Any]:
    return {
        "listen": {"port": port, "low_water_mib": 0},
        "destinations": [destination(pacs.port, commitment=True)],
        "database": database,
        "delivery": {
            "retry_first_seconds": 0.2,
            "retry_cap_seconds": 0.5,
            "probe_seconds": 0.5,
            "commit_after_seconds": 0.1,
            "commit_answer_seconds": 0.5,
            "commit_wait_seconds": 1,
            "commit_attempts": commit_attempts,
        },
    }


def _told(pacs: CommittingPacs) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(pacs.behaviours.items()))
