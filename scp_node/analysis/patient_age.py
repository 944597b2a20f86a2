"""The patient's age when the film was taken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Final

from pydicom.dataset import Dataset

from scp_node.analysis.attributes import day, description

OLDEST_PLAUSIBLE_AGE: Final = 110  # years

_AGE: Final = re.compile(r"(\d{1,3}) ?([DWMY]?)")  # PS3.5 Table 6.2-1 AS; RSNA's files omit the unit
_PER_YEAR: Final = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0, "": 1.0}


def stated_ages(header: Dataset) -> Iterator[tuple[str, float]]:
    """Yield the keyword and the age in years of each age that the header gives, the most direct first."""
    if match := _AGE.fullmatch(description(header, "PatientAge")):
        yield "PatientAge", int(match[1]) / _PER_YEAR[match[2]]
    born, taken = day(header, "PatientBirthDate"), _day_taken(header)
    if born and taken:
        yield "PatientBirthDate", taken.year - born.year - ((taken.month, taken.day) < (born.month, born.day))


def _day_taken(header: Dataset) -> date | None:
    days = (day(header, keyword) for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate"))
    return next(filter(None, days), None)
