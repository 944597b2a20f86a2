"""The plots of the report, as self-contained SVG."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pneumonia_training.intervals import Labels, Scores, bootstrap_each, precision_recall_curve, roc_curve

MODEL: Final = "#1f4e9e"
OTHERS: Final = ("#b0641b", "#5d6b78", "#7a4a8c")
_GRID: Final = np.linspace(0, 1, 101)
_STYLE: Final[dict[str, Any]] = {
    "svg.hashsalt": "pneumonia",  # the same figures give the same bytes
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": "#8a949e",
    "axes.labelcolor": "#1c2430",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e9ee",
    "xtick.color": "#4a5560",
    "ytick.color": "#4a5560",
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def roc_plot(
    scores: Mapping[str, Scores], labels: Labels, patients: NDArray[np.str_], points: Sequence[Mapping[str, Any]]
) -> bytes:
    """Return ROC curves, the first one with its 95 % band and its operating points."""

    def draw(axes: Axes) -> None:
        _band(axes, _sensitivities, next(iter(scores.values())), labels, patients)
        axes.plot([0, 1], [0, 1], color="#b8c0c8", linewidth=1, linestyle=":")
        for (name, values), colour in zip(scores.items(), (MODEL, *OTHERS), strict=False):
            axes.plot(*roc_curve(values, labels), color=colour, label=name, linewidth=2 if colour == MODEL else 1.2)
        for point, marker in zip(points, "osD^v", strict=False):
            false_positive_rate, recall = 1 - point["specificity"][0], point["recall"][0]
            axes.plot(false_positive_rate, recall, marker, color=MODEL, markeredgecolor="white", label=point["name"])
        _square(axes, "1 - specificity", "sensitivity (recall)")
        axes.legend(loc="lower right")

    return _svg(draw, (5.2, 5.0))


def precision_recall_plot(scores: Mapping[str, Scores], labels: Labels, patients: NDArray[np.str_]) -> bytes:
    """Return precision-recall curves, the first one with its 95 % band, above the share of positives."""

    def draw(axes: Axes) -> None:
        _band(axes, _precisions, next(iter(scores.values())), labels, patients)
        prevalence = float(labels.mean())
        axes.axhline(prevalence, color="#b8c0c8", linewidth=1, linestyle=":", label=f"prevalence {prevalence:.3f}")
        for (name, values), colour in zip(scores.items(), (MODEL, *OTHERS), strict=False):
            recall, precision = precision_recall_curve(values, labels)
            width = 2 if colour == MODEL else 1.2
            axes.step(recall, precision, where="pre", color=colour, label=name, linewidth=width)
        _square(axes, "recall (sensitivity)", "precision (PPV)")
        axes.legend(loc="upper right")

    return _svg(draw, (5.2, 5.0))


def reliability_plot(bins: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a reliability diagram of the filled bins; a dot's area grows with its films."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="#b8c0c8", linewidth=1, linestyle=":")
        total = sum(part["films"] for part in bins)
        for part in bins:
            value, low, high = part["positive"]
            if value is not None:
                axes.plot([part["predicted"]] * 2, [low, high], color=MODEL, linewidth=1)
                axes.scatter(part["predicted"], value, s=20 + 400 * part["films"] / total, color=MODEL, alpha=0.75)
        _square(axes, "mean probability", "share of positive films")

    return _svg(draw, (4.4, 4.2))


def groups_plot(auc: Mapping[str, Mapping[str, Sequence[float | None]]]) -> bytes:
    """Return the AUC of each scorer in each group with its interval."""
    groups = list(auc["model"])[::-1]

    def draw(axes: Axes) -> None:
        for number, (scorer, colour) in enumerate(zip(auc, (MODEL, *OTHERS), strict=False)):
            for place, group in enumerate(groups):
                value, low, high = auc[scorer][group]
                if value is None or low is None or high is None:
                    continue
                height = place + 0.22 * (len(auc) / 2 - number)
                axes.plot([low, high], [height] * 2, color=colour, linewidth=1.4)
                axes.plot(value, height, "o", color=colour, markersize=4, label=scorer if place == 0 else None)
        axes.axvline(0.5, color="#b8c0c8", linewidth=1, linestyle=":")
        axes.set_yticks(range(len(groups)), groups)
        axes.set_xlim(0.2, 1)
        axes.set_xlabel("AUC")
        handles = [mpl.lines.Line2D([], [], color=colour, marker="o", markersize=4) for colour in (MODEL, *OTHERS)]
        axes.figure.legend(handles[: len(auc)], list(auc), loc="upper center", ncols=len(auc))

    return _svg(draw, (8.6, 0.46 * len(groups) + 1.3), top=1 - 0.4 / (0.46 * len(groups) + 1.3))


def differences_plot(figures: Mapping[str, Mapping[str, Sequence[float | None]]]) -> bytes:
    """Return the difference of each figure with its interval beside zero."""
    names = list(figures)[::-1]

    def draw(axes: Axes) -> None:
        axes.axvline(0, color="#8a949e", linewidth=1)
        for place, name in enumerate(names):
            value, low, high = figures[name]["difference"]
            if value is not None and low is not None and high is not None:
                axes.plot([low, high], [place] * 2, color=MODEL, linewidth=2)
                axes.plot(value, place, "o", color=MODEL)
        axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        axes.margins(y=0.2)
        axes.set_xlabel("first minus second")

    return _svg(draw, (7.2, 0.42 * len(names) + 1.0))


def _sensitivities(scores: Scores, labels: Labels) -> NDArray[np.float64]:
    """Return the sensitivity at each false positive rate of the grid, NaN for films of one class."""
    if labels.all() or not labels.any():
        return np.full(len(_GRID), np.nan)
    return np.interp(_GRID, *roc_curve(scores, labels))


def _precisions(scores: Scores, labels: Labels) -> NDArray[np.float64]:
    """Return the precision at the first threshold that reaches each recall of the grid."""
    if labels.all() or not labels.any():
        return np.full(len(_GRID), np.nan)
    recall, precision = precision_recall_curve(scores, labels)
    return precision[1:][np.searchsorted(recall[1:], _GRID)]


def _band(
    axes: Axes,
    curve: Callable[[Scores, Labels], NDArray[np.float64]],
    scores: Scores,
    labels: Labels,
    patients: NDArray[np.str_],
) -> None:
    estimates = bootstrap_each(curve, scores, labels, patients)
    low = [np.nan if estimate.low is None else estimate.low for estimate in estimates]
    high = [np.nan if estimate.high is None else estimate.high for estimate in estimates]
    axes.fill_between(_GRID, low, high, color=MODEL, alpha=0.15, linewidth=0, label="95 % of resampled patients")


def _square(axes: Axes, across: str, up: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=across, ylabel=up, aspect="equal")


def _svg(draw: Callable[[Axes], None], size: tuple[float, float], *, top: float = 1.0) -> bytes:
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # its keys are a Literal of hundreds of names
        figure = Figure(figsize=size)
        draw(figure.subplots())
        figure.tight_layout(rect=(0, 0, 1, top))
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return file.getvalue()
