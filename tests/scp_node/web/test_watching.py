"""Days, histograms and drift: right values, and a limit that chance alone does not pass."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Final

import pytest

from scp_node.ledger.daily import PROBABILITY_BINS, DayCounts, FilmOutcome, InputCounts, bin_of_seconds
from scp_node.web.watching import (
    BASELINE_FILMS,
    FEWEST_FILMS,
    Drift,
    Reference,
    days,
    drifts,
    histogram,
    input_pictures,
    period,
    reference_of,
)

TODAY: Final = date(2026, 5, 31)
DECILES: Final = tuple(tenth / 10 for tenth in range(1, 10))
EVEN: Final = Reference(bundle="b-1", films=2_000, quantiles=DECILES, values={"probability": DECILES})


def counts(
    day: date,
    probabilities: Iterable[float],
    *,
    calling_ae: str = "CR1",
    view: str = "PA",
    seconds: Iterable[float] = (),
    refused: int = 0,
) -> DayCounts:
    known = list(probabilities)
    positive = sum(each >= 0.5 for each in known)
    outcomes = {
        FilmOutcome.PRESENT: positive,
        FilmOutcome.NOT_DETECTED: len(known) - positive,
        FilmOutcome.NOT_ANALYSED: refused,
    }
    return DayCounts(
        day=day,
        calling_ae=calling_ae,
        view=view,
        bundle="b-1",
        outcomes={name: number for name, number in outcomes.items() if number},
        reasons={"view": refused} if refused else {},
        probability_sum=sum(known),
        probabilities=Counter(min(PROBABILITY_BINS - 1, int(each * PROBABILITY_BINS)) for each in known),
        inputs={
            "mean": InputCounts(
                films=len(known), sum=0.5 * len(known), squares=0.25 * len(known), bins={50: len(known)}
            )
        },
        seconds=Counter(bin_of_seconds(each) for each in seconds),
    )


def history(seed: int, films: int, *, moved: float = 0.0, length: int = 40) -> list[DayCounts]:
    """Return days of evenly spread probabilities, moved to the right on the last three weeks."""
    chance = random.Random(seed)
    found = []
    for back in reversed(range(length)):
        shift = moved if back < 21 else 0.0
        values = [min(0.999, chance.random() * (1 - shift) + shift) for _ in range(films)]
        found.append(counts(TODAY - timedelta(days=back), values))
    return found


def drift_of(
    name: str, found: list[DayCounts], reference: Reference | None = EVEN, first: list[DayCounts] | None = None
) -> Drift:
    [drift] = [each for each in drifts(found, found if first is None else first, reference, TODAY) if each.name == name]
    return drift


def test_the_days_are_summed_over_senders_and_stand_in_order() -> None:
    later = counts(TODAY, [0.9, 0.1], calling_ae="CR2", seconds=[2.0])
    found = days([later, counts(TODAY, [0.8], refused=2, seconds=[60.0]), counts(TODAY - timedelta(days=3), [0.2])])
    assert [(day, each.received) for day, each in found.items()] == [(TODAY - timedelta(days=3), 1), (TODAY, 5)]
    assert found[TODAY].positive_rate.value == pytest.approx(2 / 3)
    assert found[TODAY].reasons == {"view": 2}
    assert found[TODAY].median_seconds == pytest.approx(2.0, rel=0.13)  # a bin is 12 % wide
    assert found[TODAY].slow_seconds == pytest.approx(60.0, rel=0.13)


def test_without_films_nothing_is_claimed() -> None:
    total = period([])
    assert (total.received, total.positive_rate.value, total.median_seconds) == (0, None, None)
    assert histogram([], EVEN) == []
    assert {(each.psi, each.is_warning) for each in drifts([], [], EVEN, TODAY)} == {(None, False)}


@pytest.mark.parametrize(("bin_number", "warned"), [(None, False), (95, True)], ids=["as-ever", "stranger"])
def test_films_that_come_close_to_the_gate_s_limit_are_warned_of(bin_number: int | None, *, warned: bool) -> None:
    reference = Reference(bundle="b-1", films=1_000, quantiles=DECILES, values={"unlikeness": DECILES})
    found = []
    for back in range(40):
        bins = Counter(dict.fromkeys(range(0, 100, 2), 1) if bin_number is None else {bin_number: 50})
        films = bins.total()
        inputs = {"unlikeness": InputCounts(films=films, sum=0.5 * films, squares=0.3 * films, bins=bins)}
        day = counts(TODAY - timedelta(days=back), [0.5] * films)
        found.append(dataclasses.replace(day, inputs=inputs))
    drift = drift_of("unlikeness", found[::-1], reference)
    assert (drift.films, drift.is_warning) == (500, warned)


def test_a_bundle_without_a_gate_has_no_unlikeness_to_compare_with() -> None:
    assert "unlikeness" not in {each.name for each in drifts([], [], EVEN, TODAY)}


def test_the_histogram_stands_beside_what_the_reference_leads_to_expect() -> None:
    bars = histogram([counts(TODAY, [0.01, 0.02, 0.97, 0.5])], EVEN)
    assert [bars[0].share, bars[10].share, bars[-1].share] == [0.5, 0.25, 0.25]
    assert sum(each.share for each in bars) == pytest.approx(1)
    assert [each.expected for each in bars] == pytest.approx([0.05] * 20)
    assert {each.expected for each in histogram([counts(TODAY, [0.5])], None)} == {None}


def test_the_shipped_bundle_s_reference_is_read_with_the_films_it_was_made_of() -> None:
    points = [{"confusion": [[474, 410], [29, 270]]}]
    kept = {"quantiles": [0.05, 0.5], "probability": [0.1, 0.2], "input_mean": [0.4, 0.5], "input_std": [0.1]}
    reference = reference_of({"reference": kept, "operating_points": points}, "b-1")
    assert reference is not None
    assert (reference.films, sorted(reference.values)) == (1_183, ["mean", "probability"])  # std: another length
    assert reference_of({"reference": {**kept, "films": 77}, "operating_points": points}, "b-1").films == 77  # type: ignore[union-attr]
    assert reference_of({"operating_points": points}, "b-1") is None
    assert reference_of({"reference": kept}, "b-1") is None


@pytest.mark.parametrize("films", [2, 5, 20, 100])
def test_chance_alone_is_no_warning_however_few_the_films(films: int) -> None:
    above = sum(drift_of("probability", history(seed, films)).days_above for seed in range(20))
    assert above == 0


def test_a_change_is_a_warning_after_three_days_and_not_before() -> None:
    moved = history(1, 100, moved=0.3)
    assert drift_of("probability", moved).is_warning
    fresh = [*history(2, 100)[:-2], *history(2, 100, moved=0.6)[-2:]]
    drift = drift_of("probability", fresh)
    assert (0 < drift.days_above < 3, drift.is_warning) == (True, False)


def test_fewer_films_than_fifty_say_nothing() -> None:
    few = history(3, 1, moved=0.9)
    assert FEWEST_FILMS > 28
    drift = drift_of("probability", few)
    assert (drift.psi, drift.days_above, drift.films) == (None, 0, 28)


def test_a_window_holds_five_hundred_films_of_whole_days() -> None:
    assert drift_of("probability", history(4, 200)).films == 600
    assert drift_of("probability", history(4, 10)).films == 280


def test_a_bundle_without_a_reference_warns_of_nothing_and_says_so() -> None:
    drift = drift_of("probability", history(5, 100, moved=0.5), None)
    assert (drift.psi, drift.is_warning, drift.against) == (None, False, "the bundle holds no reference")


def test_a_new_sender_is_seen_against_the_site_s_own_beginning() -> None:
    first = history(6, 100, length=10)
    now = [counts(row.day, [0.5] * 100, calling_ae="NEW") for row in history(6, 100, length=10)]
    assert drift_of("calling AE", now, first=first).is_warning
    assert not drift_of("calling AE", first, first=first).is_warning
    assert str(BASELINE_FILMS) in drift_of("calling AE", now, first=first).against


def test_quantiles_that_lie_close_together_are_one_bin() -> None:
    crowded = Reference(
        bundle="b-1",
        films=1_000,
        quantiles=(0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999),
        values={"probability": (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)},
    )
    drift = drift_of("probability", history(7, 100), crowded)
    assert drift.psi is not None
    assert drift.limit == pytest.approx(0.1)  # six bins: chi2(.999, 5) = 20.5, times 1/1000 + 1/500
    assert drift.days_above == 0


def test_the_input_pictures_have_mean_and_spread() -> None:
    [picture] = input_pictures([counts(TODAY, [0.1, 0.2])], None)
    assert (picture.name, picture.films, picture.mean, picture.spread, picture.expected) == ("mean", 2, 0.5, 0.0, None)
