"""The bundle on trial at work: behind every image that waits for its analysis, and it stops nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray
from pneumonia_model.prediction import NotFiniteError
from sqlalchemy import Engine

from scp_node.analysis.answers import Prepared
from scp_node.decoders import DecoderStartError
from scp_node.demo.phantom import phantom_image
from scp_node.domain import NotAnalysed
from scp_node.inference.ports import Scores
from scp_node.ledger import ShadowQuery, ShadowWaiting
from scp_node.loops.analyse import Analyser
from scp_node.loops.shadow import ShadowAnalyser
from scp_node.runtime.leases import LeaseKeeper
from scp_node.spool import Spool
from tests.scp_node.ledger_node import LEASE, MODEL, SHADOW, Node, ledger_engine
from tests.scp_node.loops.test_analyse import Decoder, Network
from tests.scp_node.loops.test_report import builder, companions
from tests.scp_node.spooled import FilesByName, spooled

BY_TRIAL: Final = ShadowQuery(bundle_digest=SHADOW.digest)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """One kind of database: the steps are the same on both, and the ledger's own tests try both."""
    with ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        yield engine


class Site:
    """One worker: the loop that reports and the one of the bundle on trial."""

    def __init__(self, node: Node, *answers: float | Exception, decoder: Decoder | None = None) -> None:
        self.node = node
        self.reporting, self.trial = Network(*[2.0] * 9), Network(*answers)
        self.trial.identity = SHADOW
        leases = LeaseKeeper(node.ledger, LEASE)
        self.analyser = Analyser(
            ledger=node.ledger,
            leases=leases,
            files=FilesByName(),
            decoder=Decoder(),
            network=self.reporting,
            batch_size=16,
            owner="w",
            shadow=SHADOW,
            clock=node.clock,
        )
        self.shadow = ShadowAnalyser(
            ledger=node.ledger,
            leases=leases,
            files=FilesByName(),
            decoder=decoder or Decoder(),
            network=self.trial,
            images=2,
            owner="s",
            may_begin=lambda: self.analyser.is_idle,
        )

    def later(self) -> bool:
        """Run the bundle on trial after the pause that follows a failure."""
        self.node.clock.advance(seconds=31)
        self.node.ledger.upkeep.sweep(MODEL)
        return self.shadow.step()


def test_each_image_gets_the_answer_of_both(node: Node) -> None:
    site = Site(node, -2.0, 3.0, 2.0)
    node.receive("1", "2", "3")
    assert site.analyser.step()
    assert site.shadow.step()
    assert site.trial.batches == [2], "a few at once: an image that comes now waits for no more"
    assert site.shadow.step()
    assert not site.shadow.step()
    pairs = node.ledger.shadow.pairs(BY_TRIAL).pairs
    assert [pair.sop_instance_uid for pair in reversed(pairs)] == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    assert [pair.agrees for pair in reversed(pairs)] == [False, True, True]
    assert pairs[2].shadow.probability == pytest.approx(1 / (1 + math.exp(2.0)))


def test_it_waits_for_every_image_that_waits_for_its_analysis(node: Node) -> None:
    site = Site(node, 2.0, 2.0)
    node.receive("1")
    site.analyser.step()
    node.receive("2")
    assert not site.shadow.step()
    site.analyser.step()
    assert site.shadow.step()


class Looking(Network):
    """A network that is asked what else goes on while it works."""

    def __init__(self, look: Callable[[], bool]) -> None:
        super().__init__(2.0)
        self.look = look
        self.seen: list[bool] = []

    def scores(self, inputs: NDArray[np.float32]) -> Scores:
        self.seen.append(self.look())
        return super().scores(inputs)


def test_it_does_not_begin_beside_a_batch_that_is_under_analysis(node: Node) -> None:
    site = Site(node, 2.0, 2.0)
    node.receive("1")
    site.analyser.step()
    node.receive("2")
    looking = Looking(site.shadow.step)
    site.analyser._network = looking
    site.analyser.step()
    assert looking.seen == [False]
    assert site.shadow.step()


def test_an_image_outside_the_intended_use_is_not_given_to_it(node: Node) -> None:
    site = Site(node)
    site.analyser._decoder = Decoder("1.dcm")
    node.receive("1")
    site.analyser.step()
    assert not site.shadow.step()


@pytest.mark.parametrize("answer", [RuntimeError("broken"), MemoryError(), math.nan, math.inf], ids=str)
def test_a_trial_that_fails_is_given_up_after_three_tries_and_the_report_is_sent_all_the_same(
    node: Node, answer: float | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(node, *[answer] * 3)
    node.receive("1")
    site.analyser.step()
    for step in (site.shadow.step, site.later, site.later):
        with pytest.raises((RuntimeError, MemoryError, NotFiniteError)):
            step()
    assert not site.later()
    assert node.ledger.shadow.waiting() == ShadowWaiting(open=0, given_up=1)
    assert node.report("pacs") is not None
    assert [row["state"] for row in node.audit()] == ["analysed"]
    assert node.rows("SELECT count(*) FROM shadow_result") == [(0,)]
    assert site.reporting.verified == 0, "the machine that reports is not doubted"
    assert caplog.text == ""


def test_an_image_that_breaks_it_does_not_take_the_next_one_with_it(node: Node) -> None:
    site = Site(node, 2.0, RuntimeError(), 2.0, RuntimeError(), RuntimeError())
    node.receive("1", "2")
    site.analyser.step()
    with pytest.raises(RuntimeError):
        site.shadow.step()
    assert site.later()  # the first alone
    for _ in range(2):
        with pytest.raises(RuntimeError):
            site.later()
    assert node.ledger.shadow.waiting() == ShadowWaiting(open=0, given_up=1)
    assert [pair.sop_instance_uid for pair in node.ledger.shadow.pairs(BY_TRIAL).pairs] == ["1.2.3.1"]


class NoDecoder(Decoder):
    def prepare_many(self, paths: Sequence[Path]) -> list[Prepared | NotAnalysed]:
        raise DecoderStartError(f"no process for {len(paths)}")


def test_decoders_that_do_not_start_cost_no_try(node: Node) -> None:
    site = Site(node, decoder=NoDecoder())
    node.receive("1")
    site.analyser.step()
    for _ in range(5):
        assert not site.later()
    assert node.rows("SELECT state, attempt FROM work WHERE queue = 'shadow'") == [("delayed", 0)]


def test_a_film_that_cannot_be_read_again_is_said_so_beside_its_result(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(node, 2.0, decoder=Decoder("1.dcm"))
    node.receive("1", "2")
    site.analyser.step()
    assert site.shadow.step()
    counts = node.ledger.shadow.counts(BY_TRIAL)
    assert (counts.images, counts.failed) == (1, 1)
    assert "shadow gives no finding sop_instance_uid=1.2.3.1" in caplog.text


def test_an_original_that_is_removed_under_its_hands_leaves_nothing(node: Node) -> None:
    site = Site(node, 2.0)
    node.receive("1")
    site.analyser.step()

    def purge() -> bool:
        with node.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE instance SET purging_at = received_at")
        return True

    looking = Looking(purge)
    looking.identity = SHADOW
    site.shadow._network = looking
    assert site.shadow.step()
    assert node.rows("SELECT count(*) FROM shadow_result") == [(0,)]


def reported(folder: Path, *, with_shadow: bool) -> dict[str, bytes]:
    """Return the files that a node with a fixed clock makes of one study, by kind."""
    folder.mkdir()
    with ledger_engine(folder / "ledger.sqlite3") as engine:
        node = Node(engine)
        site = Site(node, -9.0, -9.0)
        spool = Spool(folder / "spool", low_water_bytes=0, clock=node.clock)
        films = [phantom_image(seed, opacity=True) for seed in (1, 2)]
        for film in films:
            film.StudyInstanceUID, film.PatientID = "1.2.41", "P"
        node.ledger.intake.register([spooled(spool, film) for film in films])
        site.analyser._shadow = SHADOW if with_shadow else None
        site.analyser._wants_attention = lambda _finding: True
        site.analyser.step()
        assert site.shadow.step() is with_shadow
        build = builder(overlay="all", text_sr=True)
        node.clock.advance(seconds=99)
        assert node.report(
            "pacs",
            model=MODEL,
            build=lambda _study, snapshot: build(snapshot),
            companions=lambda snapshot: companions(build, snapshot),
        )
        [(_, uid, file)] = node.ledger.reports.files("1.2.41", None)
        return {"report": file, **{kind + name: each for kind, name, each in node.ledger.reports.companions(uid)}}


def test_reports_and_pictures_are_the_same_to_the_byte_with_and_without_it(tmp_path: Path) -> None:
    without = reported(tmp_path / "without", with_shadow=False)
    assert len(without) == 4
    assert reported(tmp_path / "with", with_shadow=True) == without
