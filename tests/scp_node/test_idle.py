"""A node that has nothing to do leaves the processor alone: it waits, and does not look again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.bench_idle import idle_node, read_twice
from tests.waiting import wait_until

SECONDS: Final = 5.0
ROLES: Final = {"supervisor", "listener", "worker", "decoder", "reporter", "sender", "web"}
# Waits a second: of the heartbeat four in each role, of what shows the others that it is there one, and the looks.
MOST: Final = {"supervisor": 4.0, "decoder": 1.0}
MOST_OF_A_ROLE: Final = 12.0


def test_no_process_of_an_idle_node_wakes_up_often(tmp_path: Path) -> None:
    def is_at_rest() -> bool:
        processes = read_twice(pid, SECONDS)
        wakes = {before.role: (after.wakes - before.wakes) / SECONDS for before, after in processes}
        return wakes.keys() == ROLES and all(often <= MOST.get(role, MOST_OF_A_ROLE) for role, often in wakes.items())

    with idle_node(tmp_path) as pid:
        wait_until(is_at_rest, 60, what="the node comes to rest")
