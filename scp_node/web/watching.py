"""What happened to the films of some days, and whether films or results have moved away from what they were.

Drift is the population stability index of a window against a reference, with a limit that knows both sizes
(`scp_node.measures.drift`). The reference of probabilities and brightness is the bundle's; of what a bundle cannot
know, such as the senders of a site, it is the site's own beginning with that bundle.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate, groupby, pairwise
from typing import Final

from scp_node.domain import UNLIKENESS
from scp_node.ledger.daily import (
    INPUT_BINS,
    PROBABILITY_BINS,
    DayCounts,
    DayTotals,
    FilmOutcome,
    seconds_within,
    summed,
)
from scp_node.measures.drift import psi, psi_limit
from scp_node.measures.intervals import Estimate, wilson

WINDOW_DAYS: Final = 28
WINDOW_FILMS: Final = 500  # a window ends earlier, going back, when it holds as many
LOOKED_AT_DAYS: Final = 7  # of these ...
WARNING_DAYS: Final = 3  # ... so many above the limit are a warning
FEWEST_FILMS: Final = 50  # in a window; below it nothing is said
BASELINE_FILMS: Final = 500  # of the site's own beginning
LEAST_SHARE: Final = 0.03  # of the reference in one bin: quantiles closer together are taken as one bin
SHOWN_BINS: Final = 20  # of the histogram of probabilities
MOST_CLASSES: Final = 9  # of senders or views; the rest counts as one more

_OWN: Final = f"this node's first {BASELINE_FILMS} films by this bundle"
_OF_BUNDLE: Final = {  # ours: the manifest's
    "probability": "probability",
    "mean": "input_mean",
    "std": "input_std",
    UNLIKENESS: UNLIKENESS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The distributions that a bundle's manifest holds."""

    bundle: str
    films: int  # that they were made of
    quantiles: tuple[float, ...]  # ascending, in ]0, 1[
    values: Mapping[str, tuple[float, ...]]  # by our name: the value at each quantile


def reference_of(manifest: Mapping[str, object], bundle: str) -> Reference | None:
    """Return the reference of a bundle's manifest; None where it holds none that can be used."""
    kept = manifest.get("reference")
    if not isinstance(kept, Mapping):
        return None
    quantiles = tuple(float(each) for each in kept.get("quantiles", ()))
    found = {name: tuple(float(each) for each in kept.get(theirs, ())) for name, theirs in _OF_BUNDLE.items()}
    values = {name: each for name, each in found.items() if len(each) == len(quantiles)}
    films = kept.get("films") or _evaluated(manifest)
    if not quantiles or not values or not isinstance(films, int) or films <= 0:
        return None
    return Reference(bundle=bundle, films=films, quantiles=quantiles, values=values)


def _evaluated(manifest: Mapping[str, object]) -> int:
    """Return the number of films that the first operating point was measured on: those of the reference."""
    points = manifest.get("operating_points")
    if not isinstance(points, Sequence) or not points or not isinstance(points[0], Mapping):
        return 0
    return sum(int(count) for row in points[0].get("confusion", ()) for count in row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """The sum of some days, or of one."""

    received: int
    outcomes: Mapping[FilmOutcome, int]
    reasons: Mapping[str, int]
    positive_rate: Estimate  # of the films with a verdict
    median_seconds: float | None  # from receipt to delivery
    slow_seconds: float | None  # 95 % are faster


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How far one thing has moved."""

    name: str
    against: str  # what it is compared with, in words
    films: int  # of the newest window
    psi: float | None  # of the newest window; None: not enough films, or no reference
    limit: float | None
    days_above: int  # of the last `LOOKED_AT_DAYS`

    @property
    def is_warning(self) -> bool:
        """Whether it was above the limit on enough days."""
        return self.days_above >= WARNING_DAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bin of the histogram of probabilities: shares of all films, 0..1."""

    low: float
    high: float
    share: float
    expected: float | None  # by the bundle's reference


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPicture:
    """One number of the input pictures over the period."""

    name: str
    films: int
    mean: float
    spread: float  # standard deviation between films
    expected: float | None  # median of the bundle's reference


def days(counts: Iterable[DayTotals]) -> dict[date, Period]:
    """Return the sum of each day with films, in UTC and in order."""
    return {day: period(rows) for day, rows in groupby(sorted(counts, key=_day_of), key=_day_of)}


def period(counts: Iterable[DayTotals]) -> Period:
    """Return the sum of some days."""
    outcomes: Counter[FilmOutcome] = Counter()
    reasons: Counter[str] = Counter()
    rows = list(counts)
    for row in rows:
        outcomes.update(row.outcomes)
        reasons.update(row.reasons)
    seconds = summed(row.seconds for row in rows)
    positive = outcomes[FilmOutcome.PRESENT]
    verdicts = positive + outcomes[FilmOutcome.NOT_DETECTED] + outcomes[FilmOutcome.UNDETERMINED]
    return Period(
        received=outcomes.total(),
        outcomes=dict(outcomes),
        reasons=dict(reasons),
        positive_rate=wilson(positive / verdicts if verdicts else 0.0, verdicts),
        median_seconds=seconds_within(seconds, 0.5),
        slow_seconds=seconds_within(seconds, 0.95),
    )


def histogram(counts: Iterable[DayCounts], reference: Reference | None) -> list[Bar]:
    """Return the probabilities in `SHOWN_BINS`, beside what the reference leads one to expect; empty without films."""
    fine = summed(row.probabilities for row in counts)
    films = fine.total()
    if not films:
        return []
    width = PROBABILITY_BINS // SHOWN_BINS
    shares = [
        sum(fine[place] for place in range(start, start + width)) / films for start in range(0, PROBABILITY_BINS, width)
    ]
    edges = [index / SHOWN_BINS for index in range(SHOWN_BINS + 1)]
    return [
        Bar(low=low, high=high, share=share, expected=expected)
        for low, high, share, expected in zip(edges, edges[1:], shares, _expected(reference, edges), strict=False)
    ]


def _expected(reference: Reference | None, edges: Sequence[float]) -> list[float | None]:
    """Return the share of the reference between each two edges, linear between its quantiles."""
    if reference is None or "probability" not in reference.values:
        return [None] * (len(edges) - 1)
    values = (0.0, *reference.values["probability"], 1.0)
    shares = (0.0, *reference.quantiles, 1.0)
    below = [_share_below(edge, values, shares) for edge in edges]
    return [high - low for low, high in pairwise(below)]


def _share_below(value: float, values: Sequence[float], shares: Sequence[float]) -> float:
    place = bisect_right(values, value)
    if place == 0:
        return 0.0
    if place == len(values):
        return 1.0
    low, high = values[place - 1], values[place]
    within = (value - low) / (high - low) if high > low else 1.0
    return shares[place - 1] + within * (shares[place] - shares[place - 1])


def input_pictures(counts: Iterable[DayCounts], reference: Reference | None) -> list[InputPicture]:
    """Return mean and spread of each number of the input pictures."""
    films: Counter[str] = Counter()
    sums: dict[str, float] = defaultdict(float)
    squares: dict[str, float] = defaultdict(float)
    for row in counts:
        for name, each in row.inputs.items():
            films[name] += each.films
            sums[name] += each.sum
            squares[name] += each.squares
    found = []
    for name in sorted(films):
        mean = sums[name] / films[name]
        spread = max(0.0, squares[name] / films[name] - mean**2) ** 0.5
        found.append(
            InputPicture(name=name, films=films[name], mean=mean, spread=spread, expected=_median(reference, name))
        )
    return found


def _median(reference: Reference | None, name: str) -> float | None:
    if reference is None or name not in reference.values or 0.5 not in reference.quantiles:
        return None
    return reference.values[name][reference.quantiles.index(0.5)]


def drifts(
    counts: Sequence[DayCounts], beginning: Sequence[DayCounts], reference: Reference | None, today: date
) -> list[Drift]:
    """Return how far probabilities, pictures, views and senders have moved by `today`.

    Args:
        counts: of one bundle, from `today - WINDOW_DAYS - LOOKED_AT_DAYS` on.
        beginning: of the same bundle, from its first day on, until it has `BASELINE_FILMS`.
        reference: the bundle's, if its manifest holds one.
        today: the last day of the newest window.
    """
    found = []
    for name in _OF_BUNDLE:
        if reference is None or name not in reference.values:
            if name == UNLIKENESS:  # a bundle without a gate
                continue
            found.append(_without_reference(name, "the bundle holds no reference"))
        else:
            found.append(_against_bundle(name, counts, reference, today))
    baseline = _baseline(beginning)
    for name, classes in (("view", _views), ("calling AE", _senders)):
        found.append(_against_beginning(name, classes, counts, baseline, today))
    return [*found, *(_against_quantiles(name, counts, baseline, today) for name in ("contrast", "sharpness"))]


def _against_bundle(name: str, counts: Sequence[DayCounts], reference: Reference, today: date) -> Drift:
    edges, shares = _bins(reference.quantiles, reference.values[name])
    expected = [share * reference.films for share in shares]

    def counted(window: Sequence[DayCounts]) -> list[float]:
        fine, bins = _fine(name, window)
        return _regrouped(fine, bins, edges)

    words = f"the {reference.films} films of {reference.bundle}"
    return _drift(name, words, counts=counts, counted=counted, expected=expected, today=today)


def _against_quantiles(name: str, counts: Sequence[DayCounts], baseline: Sequence[DayCounts], today: date) -> Drift:
    """Compare one number of the pictures with the site's own beginning, in bins that hold equally many of its films."""
    fine, bins = _fine(name, baseline)
    films = fine.total()
    if films < FEWEST_FILMS:
        return _without_reference(name, f"fewer than {FEWEST_FILMS} films so far")
    running = list(accumulate(fine[place] for place in range(bins)))
    edges = sorted({(1 + bisect_right(running, films * tenth / 10 - 1e-9)) / bins for tenth in range(1, 10)} - {1.0})
    if not edges:
        return _without_reference(name, "it has one value on all films")

    def counted(window: Sequence[DayCounts]) -> list[float]:
        return _regrouped(_fine(name, window)[0], bins, edges)

    return _drift(name, _OWN, counts=counts, counted=counted, expected=counted(baseline), today=today)


def _against_beginning(
    name: str,
    classes: Callable[[Sequence[DayCounts]], Counter[str]],
    counts: Sequence[DayCounts],
    baseline: Sequence[DayCounts],
    today: date,
) -> Drift:
    first = classes(baseline)
    if first.total() < FEWEST_FILMS:
        return _without_reference(name, f"fewer than {FEWEST_FILMS} films so far")
    known = [each for each, _ in first.most_common(MOST_CLASSES)]

    def counted(window: Sequence[DayCounts]) -> list[float]:
        found = classes(window)
        named = [float(found[each]) for each in known]
        return [*named, found.total() - sum(named)]

    return _drift(name, _OWN, counts=counts, counted=counted, expected=counted(baseline), today=today)


def _drift(
    name: str,
    against: str,
    *,
    counts: Sequence[DayCounts],
    counted: Callable[[Sequence[DayCounts]], list[float]],
    expected: Sequence[float],
    today: date,
) -> Drift:
    found = [
        _compared(counted(_window(counts, today - timedelta(days=back))), expected) for back in range(LOOKED_AT_DAYS)
    ]
    films, index, limit = found[0]
    above = sum(1 for _, each, most in found if each is not None and most is not None and each > most)
    return Drift(name=name, against=against, films=films, psi=index, limit=limit, days_above=above)


def _compared(counts: Sequence[float], expected: Sequence[float]) -> tuple[int, float | None, float | None]:
    """Return films, PSI and its limit; without the latter two where there are too few films."""
    films = round(sum(counts))
    if films < FEWEST_FILMS:
        return films, None, None
    return films, psi(expected, counts), psi_limit(sum(expected), films, bins=len(expected))


def _without_reference(name: str, why: str) -> Drift:
    return Drift(name=name, against=why, films=0, psi=None, limit=None, days_above=0)


def _window(counts: Sequence[DayCounts], last: date) -> list[DayCounts]:
    """Return the days up to `last` that hold `WINDOW_FILMS` films, whole days and at most `WINDOW_DAYS`."""
    within = [row for row in counts if last - timedelta(days=WINDOW_DAYS) < row.day <= last]
    return _until_films(sorted(within, key=_day_of, reverse=True), WINDOW_FILMS)


def _baseline(beginning: Sequence[DayCounts]) -> list[DayCounts]:
    """Return the first days that hold `BASELINE_FILMS` films, whole days."""
    return _until_films(sorted(beginning, key=_day_of), BASELINE_FILMS)


def _until_films(counts: Sequence[DayCounts], films: int) -> list[DayCounts]:
    """Return whole days, in the order in which they come, until they hold so many films with a verdict."""
    chosen: list[DayCounts] = []
    found = 0
    for _, rows in groupby(counts, key=_day_of):
        if found >= films:
            break
        of_day = list(rows)
        chosen += of_day
        found += sum(row.findings for row in of_day)
    return chosen


def _day_of(row: DayTotals) -> date:
    return row.day


def _views(counts: Sequence[DayCounts]) -> Counter[str]:
    return _classes((row.view or "unknown", row) for row in counts)


def _senders(counts: Sequence[DayCounts]) -> Counter[str]:
    return _classes((row.calling_ae, row) for row in counts)


def _classes(named: Iterable[tuple[str, DayCounts]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for name, row in named:
        found[name] += row.findings
    return found


def _fine(name: str, counts: Iterable[DayCounts]) -> tuple[Counter[int], int]:
    """Return the films in each fine bin of one number, and how many bins there are from 0 to 1."""
    if name == "probability":
        return summed(row.probabilities for row in counts), PROBABILITY_BINS
    return summed(row.inputs[name].bins for row in counts if name in row.inputs), INPUT_BINS


def _bins(quantiles: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return inner edges and shares of the bins between quantiles; bins that hold too little are joined."""
    edges: list[float] = []
    shares: list[float] = []
    below = 0.0
    for quantile, value in zip(quantiles, values, strict=True):
        is_last = 1 - quantile < LEAST_SHARE
        if quantile - below < LEAST_SHARE or is_last or (edges and value <= edges[-1]):
            continue
        edges.append(value)
        shares.append(quantile - below)
        below = quantile
    return edges, [*shares, 1 - below]


def _regrouped(fine: Mapping[int, int], bins: int, edges: Sequence[float]) -> list[float]:
    """Return the films between the edges; a fine bin that an edge divides is divided evenly."""
    counts = [0.0] * (len(edges) + 1)
    bounds = [0.0, *edges, 1.0]
    for place, films in fine.items():
        low, high = place / bins, (place + 1) / bins
        for index, (start, end) in enumerate(pairwise(bounds)):
            overlap = min(high, end) - max(low, start)
            if overlap > 0:
                counts[index] += films * overlap * bins
    return counts
