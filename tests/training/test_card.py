"""The model card says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pneumonia_training.card import BEGIN, END, figures_section, update_file, updated


@pytest.fixture
def bundle(repository: Path) -> Path:
    (folder,) = sorted((repository / "model" / "bundles").iterdir())
    return folder


def test_the_figures_on_the_card_are_the_bundles(repository: Path, bundle: Path) -> None:
    card = (repository / "model" / "MODEL_CARD.md").read_text()
    assert card == updated(card, json.loads((bundle / "metrics.json").read_text()))


def test_a_figure_changed_by_hand_is_noticed(repository: Path, bundle: Path, tmp_path: Path) -> None:
    card = (repository / "model" / "MODEL_CARD.md").read_text()
    metrics = json.loads((bundle / "metrics.json").read_text())
    metrics["test"]["auc"]["model"]["all"][0] += 0.05
    assert card != updated(card, metrics)
    (tmp_path / "card.md").write_text(card.replace(f"{metrics['test']['groups']['all']['films']}", "9999"))
    update_file(tmp_path / "card.md", bundle)
    assert "9999" not in (tmp_path / "card.md").read_text().split(BEGIN)[1].split(END)[0]


def test_the_card_names_the_bundle_and_calls_it_a_demonstration_at_once(repository: Path, bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    title, _, first_paragraph, *_ = (repository / "model" / "MODEL_CARD.md").read_text().split("\n", 3)
    assert title == f"# Model card: {manifest['name']} {manifest['version']}"
    assert "demonstration" in first_paragraph


def test_trivial_baselines_stand_in_the_same_table_as_the_model(bundle: Path) -> None:
    section = figures_section(json.loads((bundle / "metrics.json").read_text()))
    table = next(part for part in section.split("\n\n") if part.startswith("| AUC"))
    assert "this model" in table
    assert "view tag" in table
    assert "thumbnail" in table


def test_the_model_is_better_than_what_needs_no_network(bundle: Path) -> None:
    auc = json.loads((bundle / "metrics.json").read_text())["test"]["auc"]
    assert len(auc) == 3
    assert all(auc["model"]["all"][0] > groups["all"][0] for name, groups in auc.items() if name != "model")


def test_the_documents_name_no_place_of_the_machine_they_were_written_on(repository: Path, bundle: Path) -> None:
    documents = [*(repository / "model").glob("*.md"), *(repository / "training").glob("*.md"), *bundle.glob("*.json")]
    assert len(documents) >= 5
    for document in documents:
        text = document.read_text()
        assert not [word for word in ("/home/", "/work/", "/tmp/", "/root/") if word in text]  # noqa: S108 - searched for
