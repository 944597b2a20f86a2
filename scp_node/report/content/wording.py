"""What a report says in words, and the number in it: never more, never less, than the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import Final

from scp_node.domain import Finding, ModelIdentity, NotAnalysed, Outcome, Verdict
from scp_node.report.version import Remark

DEMONSTRATION: Final = "DEMONSTRATION MODEL - NOT FOR CLINICAL USE. "
UNVERIFIED: Final = "AI result, not verified by a physician."
RESEARCH: Final = "Research use only."
UNCALIBRATED: Final = "The probability is an uncalibrated score."
REMARKS: Final[Mapping[Remark, str]] = {
    Remark.INCOMPLETE: (
        "STUDY MAY BE INCOMPLETE: the transfer of its images broke off. More images may exist that are not covered."
    ),
    Remark.SEVERAL_PATIENTS: (
        "STUDY NAMES SEVERAL PATIENTS: this report covers only the images that name this patient."
    ),
    Remark.SPELLINGS_DIFFER: "The images spell the patient's name or birth date in different ways.",
}
SHORT_REMARKS: Final[Mapping[Remark, str]] = {  # 64 characters at most
    Remark.INCOMPLETE: "Study may be incomplete: transfer of its images broke off",
    Remark.SEVERAL_PATIENTS: "Study names several patients: images of this one only",
}
SHORT_LENGTH: Final = 24  # characters that OHIF 3.12 draws beside an image before it cuts

_SAID: Final = {
    Verdict.PRESENT: "PRESENT",
    Verdict.UNDETERMINED: "undetermined at this operating point",
    Verdict.NOT_DETECTED: "not detected at this operating point",
}
_RANK: Final = {Verdict.PRESENT: 2, Verdict.UNDETERMINED: 1, Verdict.NOT_DETECTED: 0}
_MOST_DECIMALS: Final = 13  # "99." and 13 digits fill a DS (PS3.5 Table 6.2-1: 16 characters)


def percent(probability: float, *limits: float) -> str:
    """Return the probability in percent, with the fewest decimals (1 at least) that stay on its side of each limit.

    0.4996 at a threshold of 0.5 is "49.96": as "50.0" it would contradict "not detected".

    Raises:
        ValueError: one of them is not a number from 0 to 1.
    """
    exact = _exact_percent("probability", probability)
    bounds = [_exact_percent("threshold", limit) for limit in limits]
    ways = [(decimals, ROUND_HALF_EVEN) for decimals in range(1, _MOST_DECIMALS)]
    for decimals, rounding in (*ways, (_MOST_DECIMALS, ROUND_CEILING), (_MOST_DECIMALS, ROUND_FLOOR)):
        shown = _rounded(exact, decimals, rounding)
        if all((shown >= bound) == (exact >= bound) for bound in bounds):
            break
    return f"{shown:f}"


def percent_exactly(fraction: float) -> str:
    """Return a threshold in percent as it is applied: all its digits, no trailing zeros.

    Raises:
        ValueError: it is not a number from 0 to 1.
    """
    return f"{_exact_percent('threshold', fraction).normalize():f}"


def operating_point(finding: Finding) -> str:
    """Return what decided: the threshold in percent, and the grey zone around it where there is one."""
    threshold = f"threshold {percent_exactly(finding.threshold)} %"
    if not finding.grey_zone:
        return threshold
    lower, upper = (percent_exactly(round(limit, 6)) for limit in finding.limits)
    return f"{threshold}, undetermined from {lower} % to {upper} %"


def short_comment(outcome: Outcome) -> str:
    """Return the outcome in at most `SHORT_LENGTH` characters: viewers draw it on the image."""
    match outcome:
        case Finding(verdict=Verdict.PRESENT):
            return "AI: pneumonia PRESENT"
        case Finding(verdict=Verdict.UNDETERMINED):
            return "AI: undetermined"
        case Finding():
            return "AI: not detected"
        case NotAnalysed():
            return "AI: NOT ANALYSED"


def image_sentence(outcome: Outcome, model: ModelIdentity) -> str:
    """Return the outcome of one image in words."""
    body = _result(outcome, model) if isinstance(outcome, Finding) else f"NOT ANALYSED: {outcome.sentence}."
    return _prefix(model) + body


def study_sentence(outcomes: Sequence[Outcome], model: ModelIdentity, remarks: Sequence[Remark] = ()) -> str:
    """Return the conclusion over all images of a study in words: the leading finding, then what it does not cover."""
    return " ".join([_covered(outcomes, model), *(REMARKS[remark] for remark in remarks)])


def _covered(outcomes: Sequence[Outcome], model: ModelIdentity) -> str:
    missing = [outcome for outcome in outcomes if isinstance(outcome, NotAnalysed)]
    reasons = "; ".join(dict.fromkeys(outcome.sentence for outcome in missing))
    leading = leading_finding(outcomes)
    if leading is None:
        return f"{_prefix(model)}NOT ANALYSED: {reasons}."
    body = _result(leading, model)
    if missing:
        body += f" {len(missing)} of {len(outcomes)} images NOT ANALYSED: {reasons}."
    return _prefix(model) + body


def leading_finding(outcomes: Sequence[Outcome]) -> Finding | None:
    """Return the finding that stands for the study: present, then undetermined, the highest first."""
    findings = [outcome for outcome in outcomes if isinstance(outcome, Finding)]
    return max(findings, key=lambda f: (_RANK[f.verdict], f.probability), default=None)


def statement(finding: Finding) -> str:
    """Return what a finding says, in one sentence."""
    probability = percent(finding.probability, *finding.limits)
    return f"Pneumonia: {_SAID[finding.verdict]} (probability {probability} %, {operating_point(finding)})."


def _result(finding: Finding, model: ModelIdentity) -> str:
    sentences = [
        statement(finding),
        UNVERIFIED,
    ]
    if model.status != "cleared":
        sentences.append(RESEARCH)
    if model.calibration == "none":
        sentences.append(UNCALIBRATED)
    return " ".join([*sentences, *(note.sentence for note in finding.notes)])


def _prefix(model: ModelIdentity) -> str:
    return DEMONSTRATION if model.status == "demonstration" else ""


def _exact_percent(name: str, fraction: float) -> Decimal:
    if not (math.isfinite(fraction) and 0 <= fraction <= 1):
        raise ValueError(f"a {name} is a number from 0 to 1, not {fraction}")
    return Decimal(repr(float(fraction))) * 100


def _rounded(exact: Decimal, decimals: int, rounding: str) -> Decimal:
    return exact.quantize(Decimal(1).scaleb(-decimals), rounding=rounding)
