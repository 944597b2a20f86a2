"""The cards say what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from pneumonia_model.bundle import load_bundle
from pneumonia_training.release.cards import (
    COMPARISONS,
    DATASET_CARD,
    MODEL_CARD,
    bundle_blocks,
    comparison_blocks,
    update_cards,
    updated,
)

from tests.node import BUNDLE

FDA_ORDER: Final = (
    "Device information",
    "Regulatory status",
    "Organization",
    "Device description",
    "Development",
    "Performance",
    "Performance monitoring",
    "Limitations",
    "Installation and use",
    "Customization",
    "Risk management",
    "Maintenance",
    "Licence and attribution",
)


def metrics() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((BUNDLE / "metrics.json").read_text())
    return document


def named_blocks(card: str) -> set[str]:
    return set(re.findall(r"<!-- generated: (\S+) -->", card))


def test_the_figures_on_the_cards_are_the_measured_ones(repository: Path) -> None:
    for path, blocks in (
        (MODEL_CARD, bundle_blocks(BUNDLE)),
        (DATASET_CARD, comparison_blocks(repository / COMPARISONS)),
    ):
        card = (repository / path).read_text()
        assert card == updated(card, blocks)
        assert named_blocks(card) == blocks.keys()


def test_a_figure_changed_by_hand_is_noticed_and_renewed(repository: Path, tmp_path: Path) -> None:
    for path in (MODEL_CARD, DATASET_CARD, COMPARISONS):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text((repository / path).read_text())
    (true_negatives, _), _ = metrics()["test"]["operating_points"][0]["confusion"]
    card = tmp_path / MODEL_CARD
    assert f" {true_negatives} " in card.read_text()
    card.write_text(card.read_text().replace(f" {true_negatives} ", " 9999 "))
    assert card.read_text() != updated(card.read_text(), bundle_blocks(BUNDLE))
    update_cards(tmp_path, BUNDLE)
    for path in (MODEL_CARD, DATASET_CARD):
        assert (tmp_path / path).read_text() == (repository / path).read_text()


def test_a_block_that_there_is_not_is_refused() -> None:
    with pytest.raises(KeyError, match="figurs"):
        updated("<!-- generated: figurs -->\nx\n<!-- end -->", {"figures": "y"})


def test_the_model_card_names_the_bundle_and_calls_it_a_demonstration_at_once(repository: Path) -> None:
    bundle = load_bundle(BUNDLE)
    title, _, first_paragraph, *_ = (repository / MODEL_CARD).read_text().split("\n", 3)
    assert title == f"# Model card: {bundle.name} {bundle.version}"
    assert "demonstration" in first_paragraph
    assert bundle.digest in (repository / MODEL_CARD).read_text()


def test_the_model_card_keeps_the_order_that_regulators_read(repository: Path) -> None:
    card = (repository / MODEL_CARD).read_text()
    assert tuple(re.findall(r"^## (.+)$", card, re.MULTILINE)) == FDA_ORDER


def test_every_item_of_the_checklist_says_where_it_is_answered(repository: Path) -> None:
    checklist = (repository / "model" / "CLAIM.md").read_text()
    items = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \|$", checklist, re.MULTILINE)
    assert [int(number) for number, _, _ in items] == list(range(1, 45))
    for number, _, answer in items:
        places = re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", answer)
        assert places or answer.startswith(("Not applicable:", "No:")), number
        for path, anchor in places:
            target = repository / "model" / path
            assert target.exists(), (number, path)
            if anchor:
                titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, number


def test_trivial_baselines_stand_in_the_same_table_as_the_model() -> None:
    head = bundle_blocks(BUNDLE)["auc"].split("\n")[0]
    for scorer in ("this model", "view tag", "thumbnail"):
        assert scorer in head


def test_the_model_is_better_than_what_needs_no_network() -> None:
    differences = metrics()["test"]["auc_difference"]
    assert len(differences) == 2
    assert all(of["all"][1] > 0 for of in differences.values())


def test_the_released_recipe_is_compared_with_at_least_four_and_none_is_surely_better(repository: Path) -> None:
    comparison = json.loads((repository / COMPARISONS).read_text())["recipes"]
    compared, released = comparison["compared"], comparison["compared"][comparison["against"]]
    assert len(compared) >= 5
    assert released["auc"]["all"] == metrics()["test"]["auc"]["model"]["all"]
    assert released["recipe"]["stages"] == load_bundle(BUNDLE).manifest["training"]["recipe"]["stages"]
    assert all(of["difference"][1] <= 0 for of in compared.values())
    assert comparison["data"] == metrics()["data"]


def test_the_documents_name_no_place_of_the_machine_they_were_written_on(repository: Path) -> None:
    folders = (repository / "model", repository / "training", BUNDLE)
    documents = [document for folder in folders for end in ("*.md", "*.json") for document in folder.glob(end)]
    assert len(documents) >= 7
    for document in documents:
        text = document.read_text()
        assert not [word for word in ("/home/", "/work/", "/tmp/", "/root/") if word in text]  # noqa: S108 - searched for
