"""What a C-STORE response means for a report, and how long to wait before the next try."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from random import Random
from typing import Final

_DUPLICATE: Final = 0x0111  # PS3.7 section C.5.7: it has our bytes, since the UID of a report stands for them
_WARNINGS: Final[Mapping[int, str]] = {  # PS3.7 section C.4 and PS3.4 Table B.2-1: stored
    0x0001: "requested optional attributes are not supported",
    0x0107: "attribute list error",
    0x0116: "attribute value out of range",
    0xB000: "data elements were coerced",
    0xB006: "data elements were discarded",
    0xB007: "data set does not match SOP class",
}
_OUT_OF_RESOURCES: Final = 0xA7  # the first byte, PS3.4 Table B.2-1: speaks of the destination, not of the object
_PASSING_FAILURES: Final = frozenset({0x0110, 0x0213})  # processing failure, resource limitation, PS3.7 section C.5
_LARGEST_EXPONENT: Final = 40  # beyond it any pause is longer than any cap


class Disposition(StrEnum):
    """What became of an object that was sent."""

    DELIVERED = "delivered"  # the destination has it
    RETRY = "retry"  # the destination did not take this object; a later try may succeed
    PERMANENT = "permanent"  # the destination said no for good
    BUSY = "busy"  # the destination takes nothing at present
    UNANSWERED = "unanswered"  # there was an association, and no response: the object's fault or the destination's
    UNREACHABLE = "unreachable"  # there was no association: the destination's fault


def classify(status: int) -> Disposition:
    """Return what a C-STORE status means."""
    if status in {0x0000, _DUPLICATE} or _is_warning(status):
        return Disposition.DELIVERED
    if status >> 8 == _OUT_OF_RESOURCES:
        return Disposition.BUSY
    is_refused = status >> 8 == 0xA9 or status >> 12 == 0xC  # does not match SOP class, cannot understand
    is_failure = status >> 8 in (0x01, 0x02) and status not in _PASSING_FAILURES  # PS3.7 section C.5
    return Disposition.PERMANENT if is_refused or is_failure else Disposition.RETRY


def remark(status: int) -> str:
    """Return what a status says beside success; "" where it says no more."""
    if not _is_warning(status):
        return ""
    meaning = _WARNINGS.get(status)
    return f"warning 0x{status:04X}: {meaning}" if meaning else f"warning 0x{status:04X}"


def _is_warning(status: int) -> bool:
    return status in _WARNINGS or status >> 12 == 0xB  # PS3.7 section C.4: Bxxx is a warning whatever the service


def pause_before(attempt: int, *, first: timedelta, cap: timedelta, random: Random) -> timedelta:
    """Return the pause before the try that follows number `attempt`: doubled each time, and spread.

    It lies between half and all of the doubled pause, so that many reports do not come back to a PACS in one moment.
    """
    doubled = first.total_seconds() * 2.0 ** min(max(attempt - 1, 0), _LARGEST_EXPONENT)
    longest = min(doubled, cap.total_seconds())
    return timedelta(seconds=random.uniform(longest / 2, longest))
