"""How the pages call what the ledger knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from scp_node.domain import UNLIKENESS, Reason, Verdict
from scp_node.ledger import DeliveryState, StudyState, WorklistRow

VERDICTS: Final[Mapping[Verdict, str]] = {
    Verdict.PRESENT: "Present",
    Verdict.NOT_DETECTED: "Not detected",
    Verdict.UNDETERMINED: "Undetermined",
}
VERDICT_CLASSES: Final[Mapping[Verdict, str]] = {
    Verdict.PRESENT: "positive",
    Verdict.NOT_DETECTED: "negative",
    Verdict.UNDETERMINED: "unsure",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StateWords:
    """A state of a study: its name, a sentence, and the class of its chip."""

    name: str
    sentence: str
    chip: str = ""


STATES: Final[Mapping[StudyState, StateWords]] = {
    StudyState.RECEIVED: StateWords(name="Received", sentence="waits for its analysis", chip="unsure"),
    StudyState.ANALYSED: StateWords(name="Analysed", sentence="waits for its report", chip="unsure"),
    StudyState.REPORTED: StateWords(name="Reported", sentence="waits for a destination", chip="unsure"),
    StudyState.DELIVERED: StateWords(name="Delivered", sentence="every destination has the report", chip="muted"),
    StudyState.NOT_ANALYSED: StateWords(
        name="Not analysed", sentence="every destination has the report that says so", chip="muted"
    ),
    StudyState.FAILED: StateWords(name="Failed", sentence="an image could not be analysed", chip="error"),
    StudyState.CONFLICT: StateWords(
        name="Conflict", sentence="two images have one SOP Instance UID: a person decides", chip="error"
    ),
    StudyState.GIVEN_UP: StateWords(name="Given up", sentence="a person has to look", chip="error"),
    StudyState.UNDELIVERABLE: StateWords(
        name="No destination", sentence="no destination was to get the report", chip="error"
    ),
    StudyState.DISCARDED: StateWords(name="Discarded", sentence="a person closed a delivery", chip="muted"),
}


INPUTS: Final[Mapping[str, str]] = {
    "mean": "brightness: mean",
    "std": "brightness: standard deviation",
    "contrast": "contrast",
    "sharpness": "sharpness",
    UNLIKENESS: "unlikeness to the films that the model knows (limit 1)",
}
"""What the pages call the numbers of `result.input_stats`."""

_TELLING: Final = frozenset({StudyState.FAILED})


def state_sentence(row: WorklistRow) -> str:
    """Return in words why a study is in its state, with what a destination said."""
    words = STATES[row.state].sentence
    if row.state is StudyState.DELIVERED and row.delivery_state is DeliveryState.COMMITTED:
        words = "every destination has promised to keep it"
    elif row.state is StudyState.DELIVERED and row.delivery_state is DeliveryState.FOUND:
        words = "every destination shows it"
    elif row.state in {StudyState.REPORTED, StudyState.GIVEN_UP} and row.detail:
        words = f"waits for {row.detail}" if row.state is StudyState.REPORTED else row.detail
    return words


def reason_sentence(row: WorklistRow) -> str:
    """Return why a film has no verdict; "" where each has one."""
    return sentence_of(row.reason or "")


def sentence_of(reason: str) -> str:
    """Return a reason as a sentence; one that this program does not know as it is."""
    return Reason(reason).sentence if reason in set(Reason) else reason


def is_reason_told(row: WorklistRow) -> bool:
    """Return whether the reason stands beside the state: a side view beside a frontal one needs no words."""
    return bool(row.reason) and row.state is not StudyState.CONFLICT and (not row.verdict or row.state in _TELLING)


def age_in_words(age: str) -> str:
    """Return an AS such as "064Y" as people write it: "64 y"."""
    return f"{int(age[:-1])} {age[-1].lower()}" if age[:-1].isdecimal() else age
