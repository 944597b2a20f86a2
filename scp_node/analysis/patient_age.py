"""The patient's age when the film was taken, by each statement of the header."""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date
from typing import Final

from pydicom.dataset import Dataset

from scp_node.analysis.attributes import UnreadableAttributeError, description

OLDEST_PLAUSIBLE_AGE: Final = 110  # years
MOST_APART: Final = 2  # years between two ages that may both be right: a birth date may be the year's first day
_ADULT: Final = 18  # years; "more than 5" may be a child or not, "more than 89" is an adult

_UNITS: Final = (
    (365.25, ("D", "DAY", "DAYS", "TAG", "TAGE", "天", "日")),
    (52.18, ("W", "WK", "WKS", "WEEK", "WEEKS", "WOCHEN")),
    (12.0, ("M", "MO", "MOS", "MONTH", "MONTHS", "MONATE", "MOIS", "MESES", "MESI", "月", "个月", "ヶ月", "か月")),
    (1.0, ("", "Y", "YR", "YRS", "YO", "YEAR", "YEARS", "JAHR", "JAHRE", "JAAR", "ANS", "AÑOS", "ANOS", "ANNI")),
    (1.0, ("LAT", "LET", "YAŞ", "ЛЕТ", "ГОД", "ГОДА", "Г", "岁", "歳", "歲", "才", "세")),
)
_PER_YEAR: Final = {unit: number for number, units in _UNITS for unit in units}
# PS3.5 Table 6.2-1 AS is "045Y"; RSNA's films omit the unit, others write "45", "45 y", "45 years old", "44Y11M" or,
# of the oldest, ">89Y", "90+" and "089Y+".
_ONE_AGE: Final = re.compile(r"(\d{1,5}(?:[.,]\d{1,2})?)\s*([^\W\d_]*)\.?")
_YEARS_OLD: Final = re.compile(r"Y[./] ?O\b\.?")
_AGE: Final = re.compile(
    r"(?:AGED?\W+)?(?P<sign>[+-]?)(?P<more>[>≥]=?|OVER )?\s*"
    rf"(?P<ages>{_ONE_AGE.pattern}(?:[\s,]*\d{{1,2}}\s*[^\W\d_]+\.?)*)"
    r"(?:\s*OLD)?\s*(?P<or_more>\+?)"
)

# The date on which the film was taken, the most direct statement first: the exposure, the making of the picture, the
# series, and the study, which another day may have opened.
_TAKEN: Final = ("AcquisitionDate", "AcquisitionDateTime", "ContentDate", "SeriesDate", "StudyDate")
# Where none of these can be read: a file may be written, and a step be started anew, long after the film.
_LAST_RESORTS: Final = ("PerformedProcedureStepStartDate", "InstanceCreationDate")

# PS3.5 Table 6.2-1 DA, ACR-NEMA, ISO 8601; month and day may be missing or 00, and a time may follow
_YEAR_FIRST: Final = (
    re.compile(r"(\d{4})[.\-/](\d{1,2})(?:[.\-/](\d{1,2}))?(?!\d)"),
    re.compile(r"(\d{4})(?:(\d{2})(?:(\d{2})(?:\d{2}){0,3})?|$)(?!\d)"),
)
_DAY_FIRST: Final = re.compile(r"(\d{1,2})\. ?(\d{1,2})\. ?(\d{4})(?!\d)")  # "01.01.2020"
# Elsewhere nobody can tell the day from the month, but the year stands out: "01/02/2020", "01012020", "JAN 2020".
_ANY_YEAR: Final = re.compile(r"(?<!\d)(?:\d{4})?((?:18|19|20)\d{2})(?!\d)")
_YEARS: Final = range(1800, 2200)
_MONTHS: Final = range(1, 13)


@dataclass(frozen=True, slots=True)
class StatedAge:
    """Patient's Age in years; with `is_least` the patient has this age or any above it."""

    years: float
    is_least: bool = False

    def agrees_with(self, age: float) -> bool:
        """Return whether both ages may be right."""
        return abs(age - self.years) <= MOST_APART or (self.is_least and age >= self.years)


@dataclass(frozen=True, slots=True)
class _Span:
    """The first and the last day that a date may mean; they are equal if its day can be read."""

    first: date
    last: date


def is_plausible(age: float) -> bool:
    """Return whether a patient can have this age in years."""
    return 0 <= age <= OLDEST_PLAUSIBLE_AGE


def stated_age(header: Dataset) -> StatedAge | None:
    """Return Patient's Age; None if it has no number.

    Raises:
        UnreadableAttributeError: its number or its unit cannot be understood.
    """
    text = description(header, "PatientAge")
    if not any(map(str.isdigit, text)):
        return None
    match = _AGE.fullmatch(_YEARS_OLD.sub("YO", text))
    if not match:
        raise UnreadableAttributeError("PatientAge")
    parts: list[tuple[str, str]] = _ONE_AGE.findall(match["ages"])
    per_year = [_PER_YEAR.get(unit, 0.0) for _, unit in parts]
    # "44Y11M" has its units in this order
    if 0.0 in per_year or per_year != sorted(set(per_year)) or (len(parts) > 1 and not all(unit for _, unit in parts)):
        raise UnreadableAttributeError("PatientAge")
    years = sum(float(number.replace(",", ".")) / unit for (number, _), unit in zip(parts, per_year, strict=True))
    is_least = bool(match["more"] or match["or_more"])
    if is_least and years < _ADULT:
        raise UnreadableAttributeError("PatientAge")
    return StatedAge(-years if match["sign"] == "-" else years, is_least)


def ages_by_birth_date(header: Dataset, near: StatedAge | None = None) -> list[float]:
    """Return the age in whole years on each date that the film may have been taken, the most direct date first.

    It is negative if the patient was born after that date, and [] without a birth date or without any such date. Where
    only the year or the month of a date can be read, several ages are possible: the one nearest to `near` counts, and
    without it the youngest.
    """
    born = _span(header, "PatientBirthDate")
    if born is None:
        return []
    dates = [taken for keyword in _TAKEN if (taken := _span(header, keyword))]
    dates = dates or [taken for keyword in _LAST_RESORTS if (taken := _span(header, keyword))]
    dates.sort(key=lambda taken: taken.first != taken.last)  # a whole date tells more than a year
    ages = []
    for taken in dates:
        youngest, oldest = _years_between(born.last, taken.first), _years_between(born.first, taken.last)
        # a child born in the year of the film is not born after it
        youngest = max(youngest, 0) if oldest >= 0 else youngest
        ages.append(float(youngest if near is None else min(max(int(near.years), youngest), oldest)))
    return ages


def _years_between(born: date, taken: date) -> int:
    return taken.year - born.year - ((taken.month, taken.day) < (born.month, born.day))


def _span(header: Dataset, keyword: str) -> _Span | None:
    """Return the days that a date may mean; None if not even its year can be read."""
    text = description(header, keyword)
    matches = [match for pattern in _YEAR_FIRST if (match := pattern.match(text)) and int(match[1]) in _YEARS]
    for match in matches:
        year, month, day = (int(part or 0) for part in match.groups())
        if month <= _MONTHS[-1]:
            return _days(year, month, day)
    if (match := _DAY_FIRST.match(text)) and int(match[3]) in _YEARS:
        return _days(int(match[3]), int(match[2]), int(match[1]))
    years = {int(year) for year in _ANY_YEAR.findall(text)} or {int(match[1]) for match in matches}
    return _days(years.pop(), 0, 0) if len(years) == 1 else None


def _days(year: int, month: int, day: int) -> _Span:
    if month not in _MONTHS:
        return _Span(date(year, 1, 1), date(year, 12, 31))
    length = monthrange(year, month)[1]
    if not 1 <= day <= length:
        return _Span(date(year, month, 1), date(year, month, length))
    return _Span(date(year, month, day), date(year, month, day))
