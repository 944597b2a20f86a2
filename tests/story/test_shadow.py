"""A site tries a second bundle on its own films, and promotes it; a node in its own processes is killed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from pneumonia_model.bundle import load_bundle

from scp_node.cli.promote import promote
from scp_node.demo.pacs import StoragePacs
from scp_node.inference.identity import identify
from scp_node.ledger import ShadowPair, ShadowQuery
from scp_node.settings_file import load_settings
from tests.model.bundles import second_bundle
from tests.node import BUNDLE, Node, destination, radiograph
from tests.waiting import wait_until

FILMS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What was seen of a node on its way."""

    half_done: tuple[int, int]  # results and results of the trial when the node was killed
    audit: list[dict[str, Any]]
    pairs: tuple[ShadowPair, ...]
    reports: int  # in the PACS
    problems: tuple[str, ...]  # of the ledger
    log: str
    reported_by: str  # after the promotion


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    trial = second_bundle(folder / "trial")
    pacs = StoragePacs(folder / "pacs")
    inference = {"bundle": str(BUNDLE), "shadow_bundle": str(trial)}
    node = Node(folder, {"destinations": [destination(pacs.port)], "inference": inference})
    try:
        yield _told(node, pacs, ShadowQuery(bundle_digest=load_bundle(trial).digest))
    finally:
        node.end()
        pacs.close()


def _told(node: Node, pacs: StoragePacs, of_trial: ShadowQuery) -> Story:
    node.start()
    ledger = node.ledger
    node.send(*(radiograph(seed, opacity=True) for seed in range(FILMS)))
    wait_until(lambda: ledger.shadow.waiting().open > 0, 60, what=f"a result opens the trial; log:\n{node.log[-2000:]}")
    node.kill()
    done = sum(row["state"] == "analysed" for row in node.audit())
    half_done = (done, ledger.shadow.counts(of_trial).images)
    node.start()
    audit = node.run_until_idle(FILMS)
    node.stop()
    promote(node.config, "Ana", yes=True)
    return Story(
        half_done=half_done,
        audit=audit,
        pairs=ledger.shadow.pairs(of_trial).pairs,
        reports=len({report.SOPInstanceUID for _, report in pacs.new_reports()}),
        problems=ledger.verifier.verify().problems,
        log=node.log,
        reported_by=identify(load_settings(node.config).inference).bundle,
    )


def test_a_kill_between_a_result_and_its_trial_loses_and_doubles_neither(story: Story) -> None:
    results, trials = story.half_done
    assert results > trials, "it was killed between them"
    assert [row["state"] for row in story.audit] == ["analysed"] * FILMS
    assert [row["report_version"] for row in story.audit] == [1] * FILMS
    assert len({pair.sop_instance_uid for pair in story.pairs}) == len(story.pairs) == FILMS
    assert story.reports == FILMS
    assert story.problems == ()


def test_reports_and_audit_name_the_reporting_bundle_alone(story: Story) -> None:
    reporting = load_bundle(BUNDLE)
    assert {row["bundle_digest"] for row in story.audit} == {reporting.digest}
    assert {pair.reporting.bundle_digest for pair in story.pairs} == {reporting.digest}
    assert {pair.shadow.bundle for pair in story.pairs} == {"trial-9.0.0"}
    audited = {row["sop_instance_uid"]: row["probability"] for row in story.audit}
    assert all(audited[pair.sop_instance_uid] == pair.reporting.probability for pair in story.pairs)
    assert all(pair.reporting.probability < pair.shadow.probability for pair in story.pairs)
    assert "shadow analyses bundle=trial-9.0.0" in story.log


def test_it_is_promoted_in_the_settings_of_the_node(story: Story) -> None:
    assert story.reported_by == "trial-9.0.0"
