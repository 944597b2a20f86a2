"""The tables of a model card, generated from a bundle's figures so that no number is typed by hand."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pneumonia_training.export import METRICS

BEGIN: Final = "<!-- figures: generated, do not edit -->"
END: Final = "<!-- end of figures -->"


def figures_section(metrics: Mapping[str, Any]) -> str:
    """Return the tables of one `metrics.json` as Markdown."""
    test, split = metrics["test"], metrics["split"]
    sides = ", ".join(
        "{0} {films} films of {patients} patients ({positive} positive)".format(name, **split[name])
        for name in ("train", "validation", "test")
    )
    subsets = ", ".join(
        f"{name} {subset['films']} ({subset['positive']} positive)"
        for name, subset in split["train"]["subsets"].items()
    )
    errors = test["calibration_error"]
    return "\n\n".join(
        [
            f"Split by {split['by']}, recipe `{split['recipe']}`: {sides}.",
            f"Trained on, by subset: {subsets}. In square brackets: 95 % intervals, by patient.",
            _table(
                (
                    "AUC among",
                    "films",
                    "positive",
                    *("**this model**" if name == "model" else name for name in test["auc"]),
                ),
                [
                    (name, group["films"], group["positive"], *(_figure(row[name]) for row in test["auc"].values()))
                    for name, group in test["groups"].items()
                ],
            ),
            _table(
                ("operating point", "threshold", "accuracy", "precision", "recall", "specificity", "TN FP / FN TP"),
                [_operating_point(point) for point in test["operating_points"]],
            ),
            f"Expected calibration error: {_figure(errors['before'])} before, {_figure(errors['after'])} after Platt.",
        ]
    )


def updated(card: str, metrics: Mapping[str, Any]) -> str:
    """Return a model card with its generated section renewed."""
    before, _, rest = card.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{figures_section(metrics)}\n\n{END}{after}"


def update_file(card: Path, bundle: Path) -> None:
    """Renew the generated section of a model card from a bundle's figures."""
    metrics = json.loads((bundle / METRICS).read_text())
    card.write_text(updated(card.read_text(), metrics))


def _operating_point(point: Mapping[str, Any]) -> tuple[str, ...]:
    (true_negatives, false_positives), (false_negatives, true_positives) = point["confusion"]
    return (
        point["name"],
        f"{point['threshold']:.3f}",
        *(_figure(point[rate]) for rate in ("accuracy", "precision", "recall", "specificity")),
        f"{true_negatives} {false_positives} / {false_negatives} {true_positives}",
    )


def _figure(estimate: list[float | None]) -> str:
    value, low, high = estimate
    if value is None:
        return "too few films"
    return f"{value:.2f} [{low:.2f}-{high:.2f}]"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
