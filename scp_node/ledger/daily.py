"""The counts of each day: what came, what the model said of it, and how long that took.

A row of `daily` is the sum over the rows of `film` with its day, calling AE title, view and bundle. The projector
changes both in one transaction, by the difference between what a film says now and what it said before. All sums are
integers, so that they are the same in any order.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any, Final, NamedTuple

from pydantic_core import from_json
from sqlalchemy import ColumnElement, Connection, Select, Text, cast, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from scp_node.domain import UNLIKENESS
from scp_node.ledger.database.schema import daily, film
from scp_node.ledger.selecting import chunks
from scp_node.ledger.transactions import Transactions

PROBABILITY_BINS: Final = 1_000  # of equal width from 0 to 1
INPUT_BINS: Final = 100  # likewise
# Of result.input_stats. Each is in [0, 1]; unlikeness is above that where a gate only notes: in the last bin.
INPUTS: Final = ("mean", "std", "contrast", "sharpness", UNLIKENESS)
BINS_PER_DECADE: Final = 20  # of the seconds, each 12 % wide
SHORTEST_SECONDS: Final = 0.1  # lower edge of bin 0, which holds all that is shorter
_LONGEST_BIN: Final = 200  # 1e9 seconds
_MICRO: Final = 1_000_000  # sums are kept in millionths
_PROBABILITY: Final = "probability"
_TOTALS: Final = ("outcome", "reason", "seconds")  # groups of the counts


class FilmOutcome(StrEnum):
    """What is known of one image."""

    WAITING = "waiting"  # no result yet
    PRESENT = "present"
    NOT_DETECTED = "not-detected"
    UNDETERMINED = "undetermined"
    NOT_ANALYSED = "not-analysed"
    FAILED = "failed"
    UNREAD = "unread"  # in conflict with another one, or set aside by a person


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmFacts:
    """What `daily` counts of one image. The fields are the columns of the table `film`."""

    id: int
    study_patient_id: int
    day: date  # of its receipt, in UTC
    calling_ae: str
    view: str
    bundle: str
    outcome: FilmOutcome
    reason: str
    probability: float | None
    inputs: Mapping[str, float]
    seconds: float | None  # from its receipt to the first delivery of a report of it


@dataclass(frozen=True, slots=True, kw_only=True)
class InputCounts:
    """One number of the input pictures, over many films."""

    films: int
    sum: float
    squares: float  # sum of the squares
    bins: Mapping[int, int]  # films in each of `INPUT_BINS`

    @property
    def mean(self) -> float:
        """Return the mean; 0 without films."""
        return self.sum / self.films if self.films else 0.0

    @property
    def spread(self) -> float:
        """Return the standard deviation between films; 0 without films."""
        return math.sqrt(max(0.0, self.squares / self.films - self.mean**2)) if self.films else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DayTotals:
    """The films of one day, calling AE title, view and bundle. A film without a result has the bundle ""."""

    day: date  # in UTC
    calling_ae: str
    view: str
    bundle: str
    outcomes: Mapping[FilmOutcome, int]
    reasons: Mapping[str, int]  # of those that were not analysed, failed or are unread; see domain.Reason
    seconds: Mapping[int, int]  # delivered films by `bin_of_seconds` of the time from receipt to delivery

    @property
    def received(self) -> int:
        """Return the number of films."""
        return sum(self.outcomes.values())

    @property
    def findings(self) -> int:
        """Return the number of films with a verdict."""
        verdicts = (FilmOutcome.PRESENT, FilmOutcome.NOT_DETECTED, FilmOutcome.UNDETERMINED)
        return sum(self.outcomes.get(each, 0) for each in verdicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCounts(DayTotals):
    """The same films, with what the model said of them and what it was given."""

    probability_sum: float
    probabilities: Mapping[int, int]  # films in each of `PROBABILITY_BINS`
    inputs: Mapping[str, InputCounts]


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyQuery:
    """Selects days, the first and the last among them; every condition that is set must hold."""

    first: date
    last: date
    calling_ae: str | None = None
    view: str | None = None
    bundle: str | None = None


class Daily:
    """Reads the counts of days."""

    def __init__(self, transactions: Transactions) -> None:
        """Read through `transactions`."""
        self._transactions = transactions

    def counts(self, query: DailyQuery) -> list[DayCounts]:
        """Return the counts, in the order of the days."""
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(_chosen(query, *_WHOLE)).all()
        return [_day_counts(row) for row in rows]

    def totals(self, query: DailyQuery) -> list[DayTotals]:
        """Return the same counts without probabilities and inputs, which take most of the time to read."""
        kept = (_text(daily.c.counts[group]).label(group) for group in _TOTALS)
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(_chosen(query, *daily.primary_key, *kept)).all()
        return [
            DayTotals(
                day=row.day,
                calling_ae=row.calling_ae,
                view=row.view,
                bundle=row.bundle,
                outcomes=_outcomes(_group(row.outcome)),
                reasons=_group(row.reason),
                seconds=_Bins(_group(row.seconds)),
            )
            for row in rows
        ]

    def beginning(self, query: DailyQuery, *, findings: int) -> list[DayCounts]:
        """Return the counts of the first days, whole ones, until they hold so many films with a verdict."""
        counts: list[DayCounts] = []
        found = 0
        with self._transactions.reading() as (connection, _now):
            for row in connection.execute(_chosen(query, *_WHOLE)):
                if found >= findings and row.day != counts[-1].day:
                    break
                counts.append(_day_counts(row))
                found += counts[-1].findings
        return counts

    def first_day(self, bundle: str) -> date | None:
        """Return the first day with films that this bundle has read; None if there is none."""
        with self._transactions.reading() as (connection, _now):
            day: date | None = connection.scalar(select(func.min(daily.c.day)).where(daily.c.bundle == bundle))
        return day


def _text(counts: ColumnElement[Any]) -> ColumnElement[str]:
    """Leave the decoding to `from_json`, which takes half the time of the database driver's."""
    return cast(counts, Text)


_WHOLE: Final = (*daily.primary_key, _text(daily.c.counts).label("counts"))


def _group(text: str | None) -> dict[str, int]:
    """Return the numbers of a group; empty where the counts have none: NULL, or on SQLite the text null."""
    return (from_json(text) or {}) if text else {}


def _chosen(query: DailyQuery, *columns: ColumnElement[Any]) -> Select[Any]:
    conditions: list[ColumnElement[bool]] = [daily.c.day >= query.first, daily.c.day <= query.last]
    named = {"calling_ae": query.calling_ae, "view": query.view, "bundle": query.bundle}
    conditions += [daily.c[name] == value for name, value in named.items() if value is not None]
    return select(*columns).where(*conditions).order_by(*daily.primary_key)


def bin_of_seconds(seconds: float) -> int:
    """Return the bin of a duration, `BINS_PER_DECADE` to each power of ten."""
    bins = math.floor(BINS_PER_DECADE * math.log10(max(seconds, SHORTEST_SECONDS) / SHORTEST_SECONDS))
    return min(bins, _LONGEST_BIN)


def seconds_within(seconds: Mapping[int, int], share: float) -> float | None:
    """Return the seconds within which `share` of the films were delivered, rounded up to a bin; None without films."""
    left = share * sum(seconds.values())
    for number, films in sorted(seconds.items()):
        left -= films
        if left <= 0:
            return SHORTEST_SECONDS * math.pow(10, (number + 1) / BINS_PER_DECADE)
    return None


Counts = Counter[tuple[str, str]]  # by the name of a group and the name in it


class _Cell(NamedTuple):
    day: date
    calling_ae: str
    view: str
    bundle: str


def kept_facts(connection: Connection, study_patient_ids: Iterable[int]) -> dict[int, FilmFacts]:
    """Return what the table `film` says of these patients' images."""
    chosen = select(film).where(film.c.study_patient_id.in_(list(study_patient_ids)))
    rows = connection.execute(chosen).mappings()
    return {row["id"]: FilmFacts(**{**row, "outcome": FilmOutcome(row["outcome"])}) for row in rows}


def apply(connection: Connection, before: Mapping[int, FilmFacts], after: Mapping[int, FilmFacts]) -> None:
    """Write what some films say now, and change the days that they count for; `before` is what they said."""
    gone = [key for key in before if key not in after]
    changed = [facts for key, facts in after.items() if before.get(key) != facts]
    if gone:
        connection.execute(delete(film).where(film.c.id.in_(gone)))
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    for some in chunks(changed):
        values = [_values(facts) for facts in some]
        statement = insert(film)
        new = {column.name: statement.excluded[column.name] for column in film.c if column is not film.c.id}
        connection.execute(statement.on_conflict_do_update(index_elements=[film.c.id], set_=new), values)
    differences: dict[_Cell, Counts] = defaultdict(Counter)
    for facts in changed:
        differences[_cell(facts)].update(_contribution(facts))
    for key in (*gone, *(facts.id for facts in changed if facts.id in before)):
        differences[_cell(before[key])].subtract(_contribution(before[key]))
    for cell, counts in sorted(differences.items()):
        if any(counts.values()):
            _change(connection, cell, counts)


def _change(connection: Connection, cell: _Cell, difference: Counts) -> None:
    here = [daily.c[name] == value for name, value in cell._asdict().items()]
    kept = connection.scalar(select(daily.c.counts).where(*here))
    counts: Counts = Counter(
        {(group, name): number for group, named in (kept or {}).items() for name, number in named.items()}
    )
    counts.update(difference)
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for (group, name), number in sorted(counts.items()):
        if number:
            groups[group][name] = number
    if not groups:
        connection.execute(delete(daily).where(*here))
    elif kept is None:
        connection.execute(daily.insert().values(**cell._asdict(), counts=groups))
    else:
        connection.execute(daily.update().where(*here).values(counts=groups))


def _values(facts: FilmFacts) -> dict[str, Any]:
    values = {name: getattr(facts, name) for name in FilmFacts.__slots__}
    return {**values, "inputs": dict(facts.inputs)}


def _cell(facts: FilmFacts) -> _Cell:
    return _Cell(facts.day, facts.calling_ae, facts.view, facts.bundle)


def _contribution(facts: FilmFacts) -> Counts:
    """Return what one film adds to its day; the groups are those that `_day_counts` reads."""
    counts: Counts = Counter({("outcome", facts.outcome.value): 1})
    if facts.reason:
        counts["reason", facts.reason] = 1
    if facts.probability is not None:
        counts["sum", _PROBABILITY] = round(facts.probability * _MICRO)
        counts[_PROBABILITY, str(_bin(facts.probability, PROBABILITY_BINS))] = 1
    for name, value in facts.inputs.items():
        counts["films", name] = 1
        counts["sum", name] = round(value * _MICRO)
        counts["squares", name] = round(value * value * _MICRO)
        counts[f"input {name}", str(_bin(value, INPUT_BINS))] = 1
    if facts.seconds is not None:
        counts["seconds", str(bin_of_seconds(facts.seconds))] = 1
    return counts


def _bin(value: float, bins: int) -> int:
    return min(bins - 1, max(0, math.floor(value * bins)))


def _day_counts(row: Any) -> DayCounts:
    groups: dict[str, dict[str, int]] = from_json(row.counts)
    sums, squares = groups.get("sum", {}), groups.get("squares", {})
    inputs = {
        name: InputCounts(
            films=films,
            sum=sums.get(name, 0) / _MICRO,
            squares=squares.get(name, 0) / _MICRO,
            bins=_bins(groups, f"input {name}"),
        )
        for name, films in groups.get("films", {}).items()
    }
    return DayCounts(
        day=row.day,
        calling_ae=row.calling_ae,
        view=row.view,
        bundle=row.bundle,
        outcomes=_outcomes(groups.get("outcome", {})),
        reasons=groups.get("reason", {}),
        probability_sum=sums.get(_PROBABILITY, 0) / _MICRO,
        probabilities=_bins(groups, _PROBABILITY),
        inputs=inputs,
        seconds=_bins(groups, "seconds"),
    )


def _outcomes(named: Mapping[str, int]) -> dict[FilmOutcome, int]:
    return {FilmOutcome(name): number for name, number in named.items()}


def summed(bins: Iterable[Mapping[int, int]]) -> Counter[int]:
    """Return the films in each bin over many days."""
    named: dict[str, int] = {}
    total: Counter[int] = Counter()
    for each in bins:
        if isinstance(each, _Bins):
            for name, films in each.named.items():  # the name becomes a number once, not for every day
                named[name] = named.get(name, 0) + films
        else:
            total.update(each)
    for name, films in named.items():
        total[int(name)] += films
    return total


class _Bins(Mapping[int, int]):
    """Counts by bin, over the names that JSON has for the bins: most rows are read for other counts alone."""

    __slots__ = ("named",)

    def __init__(self, named: Mapping[str, int]) -> None:
        self.named = named

    def __getitem__(self, place: int) -> int:
        return self.named[str(place)]

    def __iter__(self) -> Iterator[int]:
        return map(int, self.named)

    def __len__(self) -> int:
        return len(self.named)


def _bins(groups: Mapping[str, Mapping[str, int]], group: str) -> Mapping[int, int]:
    return _Bins(groups.get(group, {}))
