"""The patient's age when the film was taken, by each statement of the header."""

from __future__ import annotations

import re
from typing import Final

from pydicom.dataset import Dataset

from scp_node.analysis.attributes import UnreadableAttributeError, day, description

OLDEST_PLAUSIBLE_AGE: Final = 110  # years

# PS3.5 Table 6.2-1 AS is "045Y"; RSNA's films omit the unit, and others write "45", "45 y" or "045 YEARS".
_AGE: Final = re.compile(r"([+-]?\d{1,4}(?:[.,]\d{1,2})?)\s*([^\W\d_]*)\.?")
_UNITS: Final = (
    (365.25, ("D", "DAY", "DAYS")),
    (52.18, ("W", "WK", "WKS", "WEEK", "WEEKS")),
    (12.0, ("M", "MO", "MOS", "MONTH", "MONTHS")),
    (1.0, ("", "Y", "YR", "YRS", "YO", "YEAR", "YEARS", "JAHRE", "JAAR", "ANS", "AÑOS", "ANOS", "ANNI")),
)
_PER_YEAR: Final = {unit: number for number, units in _UNITS for unit in units}

# The date on which the film was taken, the most direct statement first: the exposure, the making of the picture, the
# series, and the study, which another day may have opened.
_TAKEN: Final = ("AcquisitionDate", "AcquisitionDateTime", "ContentDate", "SeriesDate", "StudyDate")


def is_plausible(age: float) -> bool:
    """Return whether a patient can have this age in years."""
    return 0 <= age <= OLDEST_PLAUSIBLE_AGE


def stated_age(header: Dataset) -> float | None:
    """Return Patient's Age in years; None if it has no number.

    Raises:
        UnreadableAttributeError: its number or its unit cannot be understood.
    """
    text = description(header, "PatientAge")
    if not any(map(str.isdigit, text)):
        return None
    match = _AGE.fullmatch(text)
    if not match or match[2] not in _PER_YEAR:
        raise UnreadableAttributeError("PatientAge")
    return float(match[1].replace(",", ".")) / _PER_YEAR[match[2]]


def ages_by_birth_date(header: Dataset) -> list[float]:
    """Return the age in whole years on each date that the film may have been taken, the most direct date first.

    It is negative if the patient was born after that date, and [] without a birth date or without any such date.
    """
    born = day(header, "PatientBirthDate")
    if born is None:
        return []
    dates = [taken for keyword in _TAKEN if (taken := day(header, keyword))]
    return [taken.year - born.year - ((taken.month, taken.day) < (born.month, born.day)) for taken in dates]
