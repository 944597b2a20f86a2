"""The tables of the cards, generated so that no number is typed by hand."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pneumonia_model.bundle import load_bundle

from pneumonia_training.measuring.compare_recipes import comparison_table
from pneumonia_training.release.export import METRICS

MODEL_CARD: Final = Path("model/MODEL_CARD.md")
DATASET_CARD: Final = Path("training/DATASET_CARD.md")
COMPARISONS: Final = Path("training/comparisons.json")
"""What `pneumonia-train compare` printed of the recipes (`recipes`) and of shares of the films (`learning_curve`)."""

_BLOCK: Final = re.compile(r"<!-- generated: (\S+) -->\n.*?\n<!-- end -->", re.DOTALL)
_CHANGES: Final = ("accuracy", "precision", "recall", "specificity")


def update_cards(repository: Path, bundle: Path) -> list[Path]:
    """Update the generated blocks of both cards; return the cards' paths.

    Raises:
        BundleError: the bundle is damaged.
        KeyError: a card names an unknown block.
    """
    cards = {
        repository / MODEL_CARD: bundle_blocks(bundle),
        repository / DATASET_CARD: comparison_blocks(repository / COMPARISONS),
    }
    for path, blocks in cards.items():
        path.write_text(updated(path.read_text(encoding="utf-8"), blocks), encoding="utf-8")
    return list(cards)


def updated(card: str, blocks: Mapping[str, str]) -> str:
    """Return a card with each block between `<!-- generated: NAME -->` and `<!-- end -->` replaced."""
    return _BLOCK.sub(lambda found: f"<!-- generated: {found[1]} -->\n{blocks[found[1]]}\n<!-- end -->", card)


def bundle_blocks(folder: Path) -> dict[str, str]:
    """Return the blocks of a bundle's card."""
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    test = metrics["test"]
    return {
        "identity": _identity(folder),
        "films": _films(metrics["split"]),
        "auc": _auc(test),
        "precision": _precision(test),
        "points": _points(test),
        "predictive-values": _predictive_values(test),
        "calibration": _calibration(test),
        "looks": _looks(test),
        "originals": _originals(metrics.get("originals")),
        "external": _external(metrics.get("external", {})),
        "gate": _gate(metrics.get("gate")),
    }


def comparison_blocks(path: Path) -> dict[str, str]:
    """Return the blocks of the comparisons' card."""
    comparisons = json.loads(path.read_text(encoding="utf-8"))
    return {
        "recipes": comparison_table(comparisons["recipes"]),
        "earlier-recipes": comparison_table(comparisons["earlier_recipes"]),
        "learning-curve": comparison_table(comparisons["learning_curve"]),
    }


def _identity(folder: Path) -> str:
    bundle = load_bundle(folder)
    training = bundle.manifest["training"]
    rows = [
        ("Name and version", f"{bundle.name} {bundle.version}"),
        ("Status", bundle.status),
        ("Digest: the identity, in every row and report", f"`{bundle.digest}`"),
        ("Preprocessing", f"version {bundle.manifest['preprocessing']['version']}"),
        ("Default operating point", bundle.manifest["default_operating_point"]),
        ("Recipe", f"`{training['recipe']['name']}`"),
        ("Start weights", _start(training.get("start"))),
        ("Prepared films", f"`{training['data']}`"),
        ("Trained at commit", f"`{training['commit']}`"),
    ]
    return _table(("", ""), rows)


def _start(start: Mapping[str, str] | None) -> str:
    if start is None:
        return "none: drawn at random"
    return f"`{start['file']}`, SHA-256 `{start['sha256']}`, {start['licence']}"


def _films(split: Mapping[str, Any]) -> str:
    sides = [name for name in ("train", "validation", "test") if name in split]
    words = {
        "cross-validation": f"Measured by {split.get('folds')}-fold cross-validation, split by {split['by']}.",
        "hold-out": f"Measured on films held out, split by {split['by']}.",
    }
    rows = [
        (side, name, f"{subset['films']:,}", f"{subset['positive']:,}")
        for side in sides
        for name, subset in split[side]["subsets"].items()
    ]
    people = [
        (
            side,
            *(f"{split[side][count]:,}" for count in ("films", "positive", "patients", "women", "men")),
            *(f"{split[side]['views'].get(view, 0):,}" for view in ("AP", "PA")),
            "unknown" if split[side]["age"] is None else "{1:.0f} [{0:.0f}-{2:.0f}]".format(*split[side]["age"]),
        )
        for side in sides
    ]
    return "\n\n".join(
        [
            words[split["kind"]],
            _table(("films of", "subset", "films", "positive"), rows),
            _table(("", "films", "positive", "patients", "women", "men", "AP", "PA", "age, quartiles"), people),
        ]
    )


def _auc(test: Mapping[str, Any]) -> str:
    scorers = ("**this model**" if name == "model" else name for name in test["auc"])
    rows = [
        (name, group["films"], group["positive"], *(_figure(row[name]) for row in test["auc"].values()))
        for name, group in test["groups"].items()
    ]
    differences = [
        f"this model less {name}: {_figure(of['all'], sign='+')}" for name, of in test["auc_difference"].items()
    ]
    return _table(("AUC among", "films", "positive", *scorers), rows) + f"\n\nPaired, {'; '.join(differences)}."


def _precision(test: Mapping[str, Any]) -> str:
    rows = [
        (
            "**this model**" if name == "model" else name,
            *(_figure(of[group]) for group in ("all", "view AP", "view PA")),
        )
        for name, of in test["average_precision"].items()
    ]
    return _table(("average precision", "all", "AP", "PA"), rows)


def _points(test: Mapping[str, Any]) -> str:
    rows = [
        (
            point["name"],
            f"{point['threshold']:.3f}",
            *(_figure(point[rate]) for rate in _CHANGES),
            "{} {} / {} {}".format(*(count for row in point["confusion"] for count in row)),
        )
        for point in test["operating_points"]
    ]
    points = _table(("operating point", "threshold", *_CHANGES, "TN FP / FN TP"), rows)
    groups = [(name, *(_figure(of[rate]) for rate in ("recall", "specificity"))) for name, of in _by_group(test)]
    return f"{points}\n\n{_table(('at the default point', 'recall', 'specificity'), groups)}"


def _by_group(test: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    by_group: Mapping[str, Mapping[str, Any]] = test["rates_by_group"]
    return by_group.items()


def _predictive_values(test: Mapping[str, Any]) -> str:
    name, rows = next(iter(test["predictive_values"].items()))
    cells = [(f"{row['prevalence']:.1%}", _figure(row["ppv"]), _figure(row["npv"])) for row in rows]
    return _table((f"prevalence, at {name}", "PPV", "NPV"), cells)


def _calibration(test: Mapping[str, Any]) -> str:
    rows = [
        (words, *(_figure(test[figure][side], places=3) for side in ("before", "after")))
        for words, figure in (("Expected calibration error", "calibration_error"), ("Brier score", "brier"))
    ]
    return _table(("", "before", "after Platt's calibration"), rows)


def _looks(test: Mapping[str, Any]) -> str:
    rows = [(f"AUC, {name}", _figure(of)) for name, of in test["probes"]["auc"].items()]
    pointing = test["pointing"]
    if pointing is None:  # no box is known
        return _table(("", ""), [*rows, ("map highest inside a box", "not measured: no film has a box")])
    rows += [
        (f"map highest inside a box, of {pointing['films']} positive films", _figure(pointing["hits"])),
        ("the best fixed point inside a box", _figure(pointing["baseline"]["hits"])),
        ("difference", _figure(pointing["difference"], sign="+")),
    ]
    return _table(("", ""), rows)


def _originals(originals: Mapping[str, Any] | None) -> str:
    if originals is None:
        return "Not measured."
    rows = [
        ("films, positive, patients", "{films}, {positive}, {patients}".format(**originals)),
        ("AUC as prepared for training", _figure(originals["auc"]["prepared"])),
        ("AUC as whole files", _figure(originals["auc"]["original"])),
        ("difference", _figure(originals["auc"]["difference"], sign="+", places=3)),
        ("logits higher by, negative films", f"{originals['logits_apart']['negative']:+.3f}"),
        ("logits higher by, positive films", f"{originals['logits_apart']['positive']:+.3f}"),
        ("decisions that differ", originals["decisions_that_differ"]),
    ]
    return _table(("", ""), rows)


def _external(sets: Mapping[str, Any]) -> str:
    rows = []
    for name, of in sets.items():
        counts = of["split"]["test"]
        point = of["test"]["operating_points"][0]
        figures = (of["test"]["auc"]["model"]["all"], point["recall"], point["specificity"])
        rows.append((name, counts["films"], counts["positive"], *(_figure(figure) for figure in figures)))
    return _table(("set", "films", "positive", "AUC", "recall", "specificity"), rows)


def _gate(gate: Mapping[str, Any] | None) -> str:
    if gate is None:
        return "This bundle has no gate."
    elsewhere = {f"set {name}": of for name, of in gate["external"].items()}
    outside = {f"{name}: {kind}": of for name, kinds in gate["outside"].items() for kind, of in kinds.items()}
    tables = {
        "refused of the films that are measured": gate["refused"],
        "refused of the same films after a change": gate["changed"],
        "refused of films from elsewhere": elsewhere,
        "refused of pictures that are no frontal chest films": outside,
    }
    return "\n\n".join(_table((title, "pictures", "refused", ""), _refusals(of)) for title, of in tables.items() if of)


def _refusals(groups: Mapping[str, Mapping[str, int]]) -> list[tuple[Any, ...]]:
    return [
        (name, f"{of['pictures']:,}", f"{of['refused']:,}", f"{of['refused'] / of['pictures']:.1%}")
        for name, of in groups.items()
    ]


def _figure(estimate: list[float | None], *, sign: str = "", places: int = 2) -> str:
    value, low, high = estimate
    if value is None:
        return "not known"
    parts = [f"{part:{sign}.{places}f}" for part in (value, low, high)]
    return "{} [{}{}{}]".format(parts[0], parts[1], ", " if sign else "-", parts[2])


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
