"""Reads single attributes of a header that somebody else wrote."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from scp_node.dicom.foreign import foreign_bytes

_SAFE_CODE: Final = re.compile(r"[A-Z][A-Z_]{0,15}")  # no digit, no space, no caret: neither a number nor a full name
_LONGEST_TEXT: Final = 1_024  # characters looked at, as PS3.5 allows in ST; a peer may send megabytes
_MOST_VALUES: Final = 16  # values looked at


class UnreadableAttributeError(ValueError):
    """The attribute is present, but its value cannot be understood; the message is its keyword."""


@contextmanager
def undisturbed_reading() -> Iterator[None]:
    """Read values unchanged, and suppress pydicom's warnings: they print and log the patient's values.

    This changes the state of the process: do not use it while other threads use pydicom.
    """
    log = logging.getLogger("pydicom")
    silent, log.disabled = log.disabled, True
    try:
        with config.disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = silent


def code(header: Dataset, keyword: str) -> str:
    """Return a coded value in capitals, with several values joined by a space; "" if it is missing.

    Raises:
        UnreadableAttributeError: the value cannot be decoded.
    """
    with foreign_bytes(as_=UnreadableAttributeError(keyword)):  # pydicom converts a value when it is first asked for
        return _joined(header.get(keyword)).upper()


def values(header: Dataset, keyword: str) -> list[str]:
    """Return the values in capitals, an empty one as ""; [] if the attribute is missing or all its values are empty.

    A backslash inside a value separates two values, since some writers store it under a VR without multiplicity.

    Raises:
        UnreadableAttributeError: the value cannot be decoded.
    """
    with foreign_bytes(as_=UnreadableAttributeError(keyword)):
        texts = [_joined(value).upper() for value in _several(header.get(keyword))[:_MOST_VALUES]]
    stated = [part.strip(" \0") for text in texts for part in text.split("\\")]
    while stated and not stated[-1]:
        stated.pop()
    return stated


def description(header: Dataset, keyword: str) -> str:
    """Return free text; "" if it is missing or cannot be decoded, since no decision depends on it alone."""
    try:
        return code(header, keyword)
    except UnreadableAttributeError:
        return ""


def integer(header: Dataset, keyword: str) -> int | None:
    """Return a number; None if it is missing.

    Raises:
        UnreadableAttributeError: the value is not a single whole number.
    """
    text = code(header, keyword)
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise UnreadableAttributeError(keyword) from error


def items(header: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; [] if it is missing or its value is not a sequence.

    Raises:
        UnreadableAttributeError: the value cannot be decoded.
    """
    with foreign_bytes(as_=UnreadableAttributeError(keyword)):
        value = header.get(keyword)
        return [item for item in value if isinstance(item, Dataset)] if isinstance(value, Sequence) else []


def readable_items(header: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence that holds descriptions; [] if it is missing or cannot be decoded."""
    try:
        return items(header, keyword)
    except UnreadableAttributeError:
        return []


def meanings(header: Dataset, keyword: str) -> list[str]:
    """Return the Code Meaning of each item of a sequence that holds descriptions, "" where it is missing."""
    return [description(item, "CodeMeaning") for item in readable_items(header, keyword)]


def named(keyword: str, value: str) -> str:
    """Return "keyword value" for a report or a log, or only the keyword if the value might be patient data."""
    return f"{keyword} {value}" if _SAFE_CODE.fullmatch(value) else keyword


def _joined(value: object) -> str:
    if value is None:
        return ""
    return " ".join(str(one).strip(" \0") for one in _several(value) if one is not None).strip()[:_LONGEST_TEXT]


def _several(value: object) -> list[object]:
    return list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]
