"""The words of feedback: what a reader may say of a result, and what follows from it. Values only, no SQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from scp_node.domain import Verdict

MOST_COMMENT: Final = 2_000  # characters
MOST_READER: Final = 64


class Opinion(StrEnum):
    """What a reader says of the statement of a report."""

    AGREE = "agree"
    DISAGREE = "disagree"
    UNSURE = "unsure"


class Truth(StrEnum):
    """Whether the finding is there, as far as it is known."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    UNKNOWN = "unknown"


class Source(StrEnum):
    """Where an answer comes from."""

    READER = "reader"  # given here, on the page or the command line
    IMPORT = "import"  # from a file of the site's, such as an export of its RIS
    DESTINATION = "destination"  # from a PACS that stores assessments


class Assessment(StrEnum):
    """What a reader did with a result, in the words of IHE's profile AI Result Assessment (AIRA)."""

    ACCEPT = "accept"
    MODIFY = "modify"
    REJECT = "reject"

    @property
    def opinion(self) -> Opinion:
        """Return the opinion on the statement; a modified result may have kept it or not, so that counts nowhere."""
        return _OF_ASSESSMENTS[self]


_OF_ASSESSMENTS: Final = {
    Assessment.ACCEPT: Opinion.AGREE,
    Assessment.MODIFY: Opinion.UNSURE,
    Assessment.REJECT: Opinion.DISAGREE,
}
_OPPOSITE: Final = {Truth.POSITIVE: Truth.NEGATIVE, Truth.NEGATIVE: Truth.POSITIVE}
_OF_VERDICTS: Final = {Verdict.PRESENT: Truth.POSITIVE, Verdict.NOT_DETECTED: Truth.NEGATIVE}


class FeedbackError(ValueError):
    """An answer that cannot be kept; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a reader says: an opinion on the result, or the truth, from which the opinion follows.

    Who reads without seeing the result can only say the truth. `Truth.UNKNOWN` is unsure.
    """

    opinion: Opinion | None = None
    truth: Truth | None = None
    comment: str = ""
    blind: bool = False  # the result was not shown before

    def __post_init__(self) -> None:
        """Refuse what the ledger cannot keep.

        Raises:
            FeedbackError: neither or both of opinion and truth are given, or the comment is too long or holds NUL.
        """
        if (self.opinion is None) == (self.truth is None):
            raise FeedbackError("an answer is an opinion or the truth, and not both")
        if len(self.comment) > MOST_COMMENT:
            raise FeedbackError(f"a comment has at most {MOST_COMMENT:,} characters, not {len(self.comment):,}")
        if "\0" in self.comment:
            raise FeedbackError("a comment holds no NUL character")
        if not _is_unicode(self.comment):
            raise FeedbackError("a comment is text that UTF-8 can hold")

    def about(self, verdict: Verdict) -> tuple[Opinion, Truth]:
        """Return opinion and truth where the result is `verdict`.

        An undetermined result says neither: to agree with it or not tells nothing of the truth.
        """
        if self.opinion is not None:
            return self.opinion, truth_of(verdict, self.opinion)
        truth = self.truth or Truth.UNKNOWN
        if truth is Truth.UNKNOWN:
            return Opinion.UNSURE, truth
        return (Opinion.AGREE if _OF_VERDICTS.get(verdict) is truth else Opinion.DISAGREE), truth


def truth_of(verdict: Verdict, opinion: Opinion) -> Truth:
    """Return the truth that an opinion on a result implies."""
    stated = _OF_VERDICTS.get(verdict)
    if stated is None or opinion is Opinion.UNSURE:
        return Truth.UNKNOWN
    return stated if opinion is Opinion.AGREE else _OPPOSITE[stated]


def consensus(truths: Iterable[Truth]) -> Truth:
    """Return what most of the readers say who know; unknown where as many say the opposite, and where nobody knows."""
    counts = Counter(truths)
    positive, negative = counts[Truth.POSITIVE], counts[Truth.NEGATIVE]
    if positive == negative:
        return Truth.UNKNOWN
    return Truth.POSITIVE if positive > negative else Truth.NEGATIVE


def reader_name(name: str) -> str:
    """Return a reader's name as it is kept: without spaces around it, in one case.

    Raises:
        FeedbackError: it is empty, too long, or holds what cannot be printed.
    """
    folded = name.strip().casefold()
    if not 1 <= len(folded) <= MOST_READER or not folded.isprintable() or not _is_unicode(folded):
        raise FeedbackError(f"a reader's name has 1 to {MOST_READER} characters that can be printed")
    return folded


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What the newest report of a patient's study says of it: its most telling film."""

    report_id: int
    report_version: int
    bundle: str
    bundle_digest: str
    verdict: Verdict
    probability: float  # 0..1
    threshold: float
    instance_id: int  # of the film


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One patient's study, which feedback is about: a study that names two patients is two of them."""

    id: int
    study_uid: str
    patient_id: str
    issuer: str
    accession: str
    statement: Statement | None  # None: no report yet, or none of its films has a result


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackRow:
    """What one reader says now of one subject."""

    subject_id: int
    study_uid: str
    patient_id: str
    accession: str
    reader: str
    opinion: Opinion
    truth: Truth
    comment: str
    source: Source
    blind: bool
    number: int  # 1 for a first answer, 2 for one that was changed once
    report_version: int
    bundle_digest: str
    verdict: Verdict  # of that report
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedTruth:
    """One line of a file with the truth of a study."""

    line: int
    study_uid: str  # "": the accession number names the study
    accession: str
    patient_id: str  # "": the study names one patient only
    truth: Truth
    reader: str
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineProblem:
    """Why a line of a file cannot be taken."""

    line: int
    problem: str

    def __str__(self) -> str:
        """Return the problem with its line."""
        return f"line {self.line}: {self.problem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a file; with problems nothing of it was taken."""

    new: int = 0
    changed: int = 0
    same: int = 0
    problems: tuple[LineProblem, ...] = ()
