"""Who waits for work hears of it at once, and nothing depends on that."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from scp_node.ledger import Ledger
from scp_node.runtime import polling
from scp_node.runtime.bells import Bell, Bells
from scp_node.runtime.polling import poll
from tests.scp_node.ledger_node import MODEL, POLICY, Node

NOT_AT_ALL: Final = 0.0  # seconds: a ring is there when `ring` returns


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "bells"


@pytest.fixture
def bells(folder: Path) -> Iterator[Bells]:
    with Bells(folder, one_machine=True) as bells:
        yield bells


def hung(bells: Bells, loop: str) -> Bell:
    bell = bells.hang(loop)
    assert bell
    return bell


def test_a_bell_rings_for_its_loop_alone_and_once_however_often_it_is_rung(bells: Bells) -> None:
    analyse, report = hung(bells, "analyse"), hung(bells, "report")
    for _ in range(3):
        bells.ring({"analyse"})
    assert analyse.wait(NOT_AT_ALL)
    assert not analyse.wait(NOT_AT_ALL)
    assert not report.wait(NOT_AT_ALL)


def test_each_of_two_processes_with_the_same_loop_hears(bells: Bells, folder: Path) -> None:
    with Bells(folder, one_machine=True) as others:
        first, second = hung(bells, "report"), hung(others, "report")
        bells.ring({"report", "deliver:pacs"})
        assert first.wait(NOT_AT_ALL)
        assert second.wait(NOT_AT_ALL)


def test_a_bell_that_nobody_answers_never_holds_up_who_rings(bells: Bells) -> None:
    bell = hung(bells, "analyse")
    for _ in range(10_000):
        bells.ring({"analyse"})
    assert bell.wait(NOT_AT_ALL)
    assert not bell.wait(NOT_AT_ALL)


def test_a_killed_process_leaves_a_bell_that_the_next_ring_removes(bells: Bells, folder: Path) -> None:
    code = "import os\nfrom pathlib import Path\nfrom scp_node.runtime.bells import Bells\n"
    code += f"Bells(Path({str(folder)!r}), one_machine=True).hang('report')\nos._exit(9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list(folder.iterdir())) == 1
    bells.ring({"report"})
    assert list(folder.iterdir()) == []


def test_bells_of_an_earlier_boot_are_removed_where_no_other_machine_can_have_hung_them(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    left = folder / "report@00000000-12345678"
    left.touch()
    Bells(folder, one_machine=False).close()
    assert left.exists()
    Bells(folder, one_machine=True).close()
    assert not left.exists()


def test_a_data_folder_with_a_very_long_path_has_bells(tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 40) / "bells"
    with Bells(deep, one_machine=True) as bells:
        bell = hung(bells, f"deliver:{'d' * 32}")
        bells.ring({f"deliver:{'d' * 32}"})
        assert bell.wait(NOT_AT_ALL)


def test_the_folder_is_the_owners_alone_and_empty_after_the_end(folder: Path) -> None:
    with Bells(folder, one_machine=True) as bells:
        hung(bells, "analyse")
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_used_has_no_bells_and_hurts_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Bells(tmp_path / "file" / "bells", one_machine=True) as bells:
        assert bells.hang("analyse") is None
        bells.ring({"analyse"})


class Rounds:
    """A step that never has anything to do, and ends the loop at round `last`."""

    def __init__(self, last: int) -> None:
        self.stop = threading.Event()
        self.count = 0
        self._last = last

    def __call__(self) -> bool:
        self.count += 1
        if self.count == self._last:
            self.stop.set()
        return False


def test_a_loop_looks_again_without_its_bell(bells: Bells, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "PAUSE_WITH_BELL", 0.01)
    bell = hung(bells, "report")
    shutil.rmtree(folder)
    bells.ring({"report"})
    rounds = Rounds(3)
    assert poll(rounds, rounds.stop, name="report", bell=bell)
    assert rounds.count == 3


def test_the_end_of_a_process_does_not_wait_for_a_pause(bells: Bells, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "PAUSE_WITH_BELL", 3_600.0)
    bell, rounds = hung(bells, "report"), Rounds(0)
    thread = threading.Thread(target=poll, args=(rounds, rounds.stop), kwargs={"name": "report", "bell": bell})
    thread.start()
    rounds.stop.set()
    bells.ring_own()
    thread.join(30)
    assert not thread.is_alive()


def test_each_commit_that_makes_work_ready_tells_whom_it_is_for(node: Node) -> None:
    told: list[set[str]] = []
    node.ledger = Ledger(node.engine, POLICY, node.clock, ring=lambda queues: told.append(set(queues)))
    node.receive("1")
    assert told.pop() == {"analyse"}
    node.analyse()
    assert told == [], "a study is not due before it is quiet"
    node.clock.advance(seconds=11)
    node.ledger.upkeep.sweep(MODEL)
    assert told.pop() == {"report"}
    node.report("pacs", "archive")
    assert told.pop() == {"deliver:pacs", "deliver:archive"}
    assert told == []


def test_a_transaction_that_is_rolled_back_tells_nobody(node: Node) -> None:
    told: list[set[str]] = []
    node.ledger = Ledger(node.engine, POLICY, node.clock, ring=lambda queues: told.append(set(queues)))
    with pytest.raises(AttributeError):
        node.ledger.intake.register([node.instance("1"), None])  # type: ignore[list-item]
    assert told == []
