"""Makes figures of quality of what readers said, each with its interval, or with the reason why it cannot be known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scp_node.ledger import SampleData, SampledStudy, Truth
from scp_node.measures import (
    UNKNOWN,
    Accuracy,
    Estimate,
    RocPoint,
    Stratum,
    accuracy,
    auc_of,
    bootstrap,
    kappa,
    roc_curve,
    wilson,
)

MOST_PAIRS: Final = 10  # of readers whose agreement is shown, those with the most studies
WELL_READ: Final = 0.8  # share of the drawn studies below which the rest may well be others


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How much of one stratum of the sample is read."""

    total: int  # studies of which it was drawn
    drawn: int
    known: int  # whose truth is known
    unclear: int  # answered, but unsure or contradictory

    @property
    def unread(self) -> int:
        """Return the number of drawn studies that nobody has answered."""
        return self.drawn - self.known - self.unclear

    @property
    def is_well_read(self) -> bool:
        """Return whether most of the drawn studies are known."""
        return self.drawn > 0 and self.known >= WELL_READ * self.drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far two readers agree."""

    first: str
    second: str
    studies: int
    same: int
    kappa: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """The figures of a selection of studies."""

    days: int
    bundles: tuple[str, ...]
    undetermined: int
    positive: Reading
    negative: Reading
    rates: Accuracy  # from the sample
    all_positives: Estimate  # PPV from all positive studies that were answered
    positives_right: int
    positives_wrong: int
    positives_unclear: int
    positives_unanswered: int
    area: Estimate
    curve: tuple[RocPoint, ...]
    agreements: tuple[Agreement, ...]
    why_no_sensitivity: str  # "" where it is known
    remarks: tuple[str, ...]


def quality_of(data: SampleData) -> Quality:
    """Return the figures that follow from what is known.

    Sensitivity and specificity are made from the reading sample alone: readers answer mostly what was flagged, so other
    answers say little about what was missed.
    """
    strata = [_Sample(data, is_positive=sign) for sign in (True, False)]
    rates = accuracy(*(each.stratum for each in strata))
    known = data.positives_right + data.positives_wrong
    right_share = data.positives_right / known if known else 0.0
    area, curve = _roc(strata)
    answered = known + data.positives_unclear
    return Quality(
        days=data.days,
        bundles=data.bundles,
        undetermined=data.undetermined,
        positive=strata[0].reading,
        negative=strata[1].reading,
        rates=rates,
        all_positives=wilson(right_share, known),
        positives_right=data.positives_right,
        positives_wrong=data.positives_wrong,
        positives_unclear=data.positives_unclear,
        positives_unanswered=data.positive - answered,
        area=area,
        curve=curve,
        agreements=_agreements(data),
        why_no_sensitivity="" if rates.sensitivity.is_known else _why_unknown(data, strata),
        remarks=tuple(_remarks(data, strata)),
    )


class _Sample:
    """The drawn studies of one sign."""

    def __init__(self, data: SampleData, *, is_positive: bool) -> None:
        self.is_positive = is_positive
        self.total = data.positive if is_positive else data.negative
        self.drawn = [each for each in data.sample if each.is_positive is is_positive]
        self.known = [each for each in self.drawn if each.truth is not Truth.UNKNOWN]

    @property
    def truth(self) -> NDArray[np.bool_]:
        return np.array([each.truth is Truth.POSITIVE for each in self.known], dtype=np.bool_)

    @property
    def weights(self) -> NDArray[np.float64]:
        """Return weights that add up to the total: those that are not read count as those that are."""
        weights = np.array([each.weight for each in self.known], dtype=np.float64)
        return weights * (self.total / weights.sum()) if len(weights) else weights

    @property
    def stratum(self) -> Stratum:
        return Stratum(total=self.total, truth=self.truth, weights=self.weights)

    @property
    def reading(self) -> Reading:
        answered = sum(each.readers > 0 for each in self.drawn)
        return Reading(
            total=self.total,
            drawn=len(self.drawn),
            known=len(self.known),
            unclear=answered - len(self.known),
        )


def _roc(strata: Sequence[_Sample]) -> tuple[Estimate, tuple[RocPoint, ...]]:
    known: list[SampledStudy] = [study for each in strata for study in each.known]
    if not all(each.known or each.total == 0 for each in strata):
        return UNKNOWN, ()
    scores = np.array([each.probability for each in known], dtype=np.float64)
    truth = np.concatenate([each.truth for each in strata])
    weights = np.concatenate([each.weights for each in strata])
    signs = np.array([each.is_positive for each in known], dtype=np.int64)
    area = bootstrap(auc_of(scores, truth), weights, signs)
    return area, roc_curve(scores, truth, weights)


def _agreements(data: SampleData) -> tuple[Agreement, ...]:
    of_readers: dict[tuple[str, str], list[tuple[Truth, Truth]]] = defaultdict(list)
    for pair in data.pairs:
        of_readers[pair.first, pair.second].append(pair.truths)
    ordered = sorted(of_readers.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(
        Agreement(
            first=first,
            second=second,
            studies=len(truths),
            same=sum(one is other for one, other in truths),
            kappa=kappa([one for one, _ in truths], [other for _, other in truths]),
        )
        for (first, second), truths in ordered[:MOST_PAIRS]
    )


def _why_unknown(data: SampleData, strata: Sequence[_Sample]) -> str:
    """Return why sensitivity is not known."""
    positive, negative = strata
    if not data.days:
        return "No day of this selection is over and has a study with a result."
    if negative.total and not negative.known:
        answers = data.positives_right + data.positives_wrong
        seen = f" Answers about flagged studies, {answers} so far, cannot tell it." if answers else ""
        return f"No negative study of the reading sample is read: nobody knows how many findings were missed.{seen}"
    if positive.total and not positive.known:
        return "No positive study of the reading sample is read."
    return "No study of the reading sample has the finding: there is nothing that could have been found."


def _remarks(data: SampleData, strata: Sequence[_Sample]) -> list[str]:
    remarks = []
    if len(data.bundles) > 1:
        remarks.append(f"These are results of {len(data.bundles)} bundles together: choose one to judge it.")
    for each, word in zip(strata, ("positive", "negative"), strict=True):
        reading = each.reading
        if reading.known and not reading.is_well_read:
            remarks.append(
                f"Of {reading.drawn} {word} studies in the reading sample {reading.known} are known: if the others "
                "were left out for a reason, the figures are not true."
            )
    negative = strata[1]
    if negative.known and not negative.truth.any():
        remarks.append(
            f"No missed finding was seen among {len(negative.known)} negative studies. That some were missed among all "
            f"{negative.total:,} is still possible: see the lower end of the sensitivity."
        )
    if data.undetermined:
        remarks.append(f"{data.undetermined} undetermined results count as not flagged.")
    return remarks
