"""The evaluation as one self-contained page of HTML: tables and plots are inside the file."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

import numpy as np

from pneumonia_training.measuring.measure import Measurement
from pneumonia_training.pages.plots import (
    differences_plot,
    groups_plot,
    precision_recall_plot,
    reliability_plot,
    roc_plot,
)

Estimate = Sequence[float | None]
NOT_FOR_USE: Final = "DEMONSTRATION MODEL - NOT FOR CLINICAL USE"
_STYLE: Final = """
body { margin: 0 auto; max-width: 64rem; padding: 2rem 1.5rem 4rem; background: #fff; color: #1c2430;
  font: 16px/1.5 system-ui, "Segoe UI", "Liberation Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem;
  border-bottom: 1px solid #d9dee5; padding-bottom: .25rem; } h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { max-width: 46rem; margin: .5rem 0; } .quiet { color: #5a6673; font-size: .875rem; } code { font-size: .8125rem;
  overflow-wrap: anywhere; } .warning { background: #fff4dc; border-left: 4px solid #d08a00; padding: .5rem .9rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: .6rem 0; font-size: .875rem; }
th, td { padding: .3rem .75rem; text-align: right; border-bottom: 1px solid #e6e9ee; white-space: nowrap;
  font-variant-numeric: tabular-nums; } th { color: #4a5560; font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; } .interval { color: #6a7683; font-size: .8em; }
.row { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; } .row > div { flex: 0 1 auto; }
.key { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.2rem 0; } .key div { background: #f4f6f9;
  border-radius: 6px; padding: .6rem 1rem; min-width: 8.5rem; } .key b { display: block; font-size: 1.35rem; }
.matrix td { text-align: center; width: 5.5rem; font-size: 1rem; } .right { background: #e3edfb; } .wrong {
  background: #fbe9df; } img { max-width: 100%; height: auto; }
"""


def report(document: Mapping[str, Any], measurement: Measurement) -> str:
    """Return the page of an evaluation; `document` is its `metrics.json`."""
    test = document["test"]
    labels = measurement.films["label"].to_numpy() == 1
    two_classes = bool(labels.any() and not labels.all())
    sections = [_key_figures(test), _films(document)]
    if two_classes:
        sections += [_curves(measurement), _reliability(test)]
    sections += [_operating_points(test)]
    if two_classes:
        sections += [_predictive_values(test), _subgroups(test), _baselines(test)]
    sections += [_probes(test), _pointing(test), _unreadable(document)]
    return _page(document["bundle"], document["warnings"], sections)


def comparison_report(document: Mapping[str, Any]) -> str:
    """Return the page of a comparison of two bundles."""
    first, second, films = document["first"], document["second"], document["films"]
    rows = [
        (
            _words(name),
            *(_estimate(of[side], signed=side == "difference") for side in ("first", "second", "difference")),
        )
        for name, of in document["figures"].items()
    ]
    head = ("", _named(first), _named(second), "first minus second")
    text = (
        f"{films['films']} films of {films['patients']} patients, {films['positive']} positive. Both bundles are "
        "measured on the same resampled patients: a difference whose interval holds 0 may be chance. Recall and "
        "specificity are at each bundle's own default operating point; for the Brier score and the calibration error "
        "less is better."
    )
    plot = _picture(differences_plot(document["figures"]), "differences of the two bundles with their intervals")
    body = [_section("Differences", _paragraph(text), _table(head, rows), plot)]
    title = f"{_named(first)} against {_named(second)}"
    return _document(title, [_banner([first, second]), f"<h1>{escape(title)}</h1>", _digests([first, second]), *body])


def _page(bundle: Mapping[str, str], warnings: Iterable[str], sections: Sequence[str]) -> str:
    title = f"Evaluation of {_named(bundle)}"
    doubts = "".join(f'<p class="warning">{escape(warning)}</p>' for warning in warnings)
    head = [_banner([bundle]), f"<h1>{escape(title)}</h1>", _digests([bundle]), doubts]
    return _document(title, [*head, *sections])


def _key_figures(test: Mapping[str, Any]) -> str:
    default = test["operating_points"][0]
    figures = {
        "AUC": test["auc"]["model"]["all"],
        "average precision": test["average_precision"]["model"]["all"],
        f"recall at {default['name']}": default["recall"],
        f"specificity at {default['name']}": default["specificity"],
        "calibration error": test["calibration_error"]["after"],
    }
    cells = "".join(f"<div>{escape(name)}<b>{_estimate(of)}</b></div>" for name, of in figures.items() if known(of))
    return f'<div class="key">{cells}</div>' + _paragraph(
        "In brackets: 95 % intervals over 1,000 bootstrap samples of patients.", quiet=True
    )


def _films(document: Mapping[str, Any]) -> str:
    split = document["split"]
    kinds = {
        "hold-out": "Measured on patients that were held out of training.",
        "cross-validation": (
            f"Measured by cross-validation in {split.get('folds')} folds: each film is scored by a network that has "
            "not seen its patient, with a calibration and thresholds chosen on the other folds."
        ),
        "external": "Measured on films from elsewhere.",
        "all films": "Measured on all films given.",
    }
    head = ("", "films", "positive", "patients", "subsets")
    rows = [
        (
            side,
            split[side]["films"],
            split[side]["positive"],
            split[side]["patients"],
            ", ".join(split[side]["subsets"]),
        )
        for side in ("train", "validation", "test")
        if side in split
    ]
    return _section("Films", _paragraph(f"{kinds[split['kind']]} Split by {split['by']}."), _table(head, rows))


def _curves(measurement: Measurement) -> str:
    labels = measurement.films["label"].to_numpy() == 1
    patients = measurement.films["group"].to_numpy(dtype=np.str_)
    scores = {"this model": measurement.scores.logits, **measurement.baselines}
    roc = roc_plot(scores, labels, patients, measurement.figures["operating_points"])
    precision = precision_recall_plot(scores, labels, patients)
    return _section(
        "ROC and precision-recall",
        _row(_picture(roc, "ROC curves"), _picture(precision, "precision-recall curves")),
        _paragraph("The dotted lines are chance: the diagonal, and the share of positive films.", quiet=True),
    )


def _reliability(test: Mapping[str, Any]) -> str:
    sides = [
        f"<h3>{title}</h3>{_picture(reliability_plot(test['reliability'][side]), f'reliability, {title}')}"
        for side, title in (("before", "Before calibration"), ("after", "After Platt's"))
    ]
    rows = [
        (title, _estimate(test[figure]["before"]), _estimate(test[figure]["after"]))
        for figure, title in (("calibration_error", "expected calibration error, ten bins"), ("brier", "Brier score"))
    ]
    return _section("Reliability", _row(*sides), _table(("", "before", "after"), rows))


def _operating_points(test: Mapping[str, Any]) -> str:
    head = ("operating point", "threshold", "recall", "specificity", "precision", "accuracy")
    rows = [
        (point["name"], f"{point['threshold']:.3f}", *(_estimate(point[rate]) for rate in head[2:]))
        for point in test["operating_points"]
    ]
    matrices = [f"<h3>{escape(point['name'])}</h3>{_matrix(point['confusion'])}" for point in test["operating_points"]]
    text = "Thresholds are of the calibrated probability. The first point is the one that reports are written with."
    return _section("Operating points", _paragraph(text), _table(head, rows), _row(*matrices))


def _matrix(confusion: Sequence[Sequence[int]]) -> str:
    (true_negatives, false_positives), (false_negatives, true_positives) = confusion
    return (
        '<table class="matrix"><tr><th></th><th>called negative</th><th>called positive</th></tr>'
        f'<tr><td>negative</td><td class="right">{true_negatives}</td><td class="wrong">{false_positives}</td></tr>'
        f'<tr><td>positive</td><td class="wrong">{false_negatives}</td><td class="right">{true_positives}</td></tr>'
        "</table>"
    )


def _predictive_values(test: Mapping[str, Any]) -> str:
    head = ("operating point", "prevalence", "PPV", "NPV")
    rows = [
        (name, f"{100 * row['prevalence']:g} %", _estimate(row["ppv"]), _estimate(row["npv"]))
        for name, values in test["predictive_values"].items()
        for row in values
    ]
    text = "By Bayes' theorem from recall and specificity here, as if these held at another prevalence."
    return _section("Predictive values", _paragraph(text), _table(head, rows))


def _subgroups(test: Mapping[str, Any]) -> str:
    head = ("", "films", "positive", "AUC", "average precision", "recall", "specificity")
    rows = [
        (
            name,
            group["films"],
            group["positive"],
            _estimate(test["auc"]["model"][name]),
            _estimate(test["average_precision"]["model"][name]),
            *(_estimate(test["rates_by_group"][name][rate]) for rate in ("recall", "specificity")),
        )
        for name, group in test["groups"].items()
    ]
    text = (
        "Recall and specificity are at the default operating point. A group against one kind of negative films holds "
        "all positive ones. Average precision depends on a group's share of positives: do not compare it across groups."
    )
    plot = _picture(groups_plot(test["auc"]), "AUC by group")
    return _section("Subgroups", _paragraph(text), _table(head, rows), plot)


def _baselines(test: Mapping[str, Any]) -> str:
    if not test["auc_difference"]:
        return ""
    head = ("", "AUC", "model minus baseline", "average precision", "model minus baseline")
    rows = [
        (
            name,
            _estimate(test["auc"][name]["all"]),
            _estimate(test["auc_difference"][name]["all"], signed=True),
            _estimate(test["average_precision"][name]["all"]),
            _estimate(test["average_precision_difference"][name], signed=True),
        )
        for name in test["auc_difference"]
    ]
    text = "What needs no network. Differences are paired: both score the same resampled patients."
    return _section("Trivial baselines", _paragraph(text), _table(head, rows))


def _probes(test: Mapping[str, Any]) -> str:
    probes = test.get("probes")
    if probes is None or not known(test["auc"]["model"]["all"]):
        return ""
    rows = [("whole film", _estimate(test["auc"]["model"]["all"]))]
    rows += [(name, _estimate(of)) for name, of in probes["auc"].items()]
    text = (
        f"The border is {probes['border']:.3g} of the side, all round; what is masked holds the mean of what is left. "
        "Near .5 with the border only, the network does not go by marks and collimation."
    )
    return _section("Shortcut probes", _paragraph(text), _table(("the network sees", "AUC"), rows))


def _pointing(test: Mapping[str, Any]) -> str:
    pointing = test.get("pointing")
    if pointing is None:
        return ""
    x, y = pointing["baseline"]["point"]
    rows = [
        ("highest place of the activation map", _estimate(pointing["hits"])),
        (f"one fixed point, {x:.2f} across and {y:.2f} down", _estimate(pointing["baseline"]["hits"])),
        ("difference", _estimate(pointing["difference"], signed=True)),
    ]
    text = (
        f"How often a point lies in a radiologist's box, over {pointing['films']} positive films with boxes. The fixed "
        "point is the best there is on these very films. A map shows what the score is made of; it outlines nothing."
    )
    return _section("Pointing game", _paragraph(text), _table(("", "films hit"), rows))


def _unreadable(document: Mapping[str, Any]) -> str:
    unreadable = document.get("unreadable")
    if not unreadable:
        return ""
    rows = [(film["path"], film["reason"]) for film in unreadable]
    return _section("Films that could not be read", _table(("path", "reason"), rows))


def known(estimate: Estimate) -> bool:
    """Return whether the figure could be computed from the films."""
    return estimate[0] is not None


class _Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def _estimate(estimate: Estimate, *, signed: bool = False) -> _Html:
    value, low, high = estimate
    if value is None or low is None or high is None:
        return _Html('<span class="interval">too few films</span>')
    sign = "+" if signed else ""
    interval = f"[{low:{sign}.3f}, {high:{sign}.3f}]" if signed else f"[{low:.3f}-{high:.3f}]"
    return _Html(f'{value:{sign}.3f} <span class="interval">{interval}</span>')


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    lines = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{titles}</tr>{lines}</table></div>'


def _cell(cell: object) -> str:
    return cell if isinstance(cell, _Html) else escape(str(cell))


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def _row(*parts: str) -> str:
    return f'<div class="row">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def _paragraph(text: str, *, quiet: bool = False) -> str:
    return f"<p{' class=quiet' if quiet else ''}>{escape(text)}</p>"


def _picture(svg: bytes, alternative: str) -> str:
    return f'<img alt="{escape(alternative)}" src="data:image/svg+xml;base64,{b64encode(svg).decode()}">'


def _words(name: str) -> str:
    return {"auc": "AUC", "brier": "Brier score"}.get(name, name.replace("_", " "))


def _named(bundle: Mapping[str, str]) -> str:
    return f"{bundle['name']} {bundle['version']}"


def _digests(bundles: Iterable[Mapping[str, str]]) -> str:
    lines = "<br>".join(f"{escape(_named(bundle))} <code>{escape(bundle['digest'])}</code>" for bundle in bundles)
    return f'<p class="quiet">{lines}</p>'


def _banner(bundles: Iterable[Mapping[str, str]]) -> str:
    demonstration = any(bundle["status"] == "demonstration" for bundle in bundles)
    return f'<p class="warning"><b>{NOT_FOR_USE}</b></p>' if demonstration else ""


def _document(title: str, parts: Iterable[str]) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>{''.join(parts)}</body></html>\n"
    )
