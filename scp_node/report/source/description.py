"""What a header says of its patient, for the list of studies: names in all their scripts, sex, age and view."""

from __future__ import annotations

from datetime import date
from typing import Final

from scp_node.dicom.encoding import DamagedError
from scp_node.domain import FilmDescription
from scp_node.report.source.mending import valid_age, valid_date, valid_sex
from scp_node.report.source.source import Attributes, header_attributes

_DAYS: Final = ("StudyDate", "AcquisitionDate", "ContentDate")
_GROUPS: Final = 3  # of a PN, PS3.5 Section 6.2.1
_LONGEST_NAME: Final = 256  # characters of one group; 64 by the standard


def describe(header: bytes, transfer_syntax: str) -> FilmDescription:
    """Return what the header of a received image says of its patient; nothing where it cannot be decoded."""
    try:
        attributes = header_attributes(header, transfer_syntax)
    except DamagedError:
        return FilmDescription()
    groups = attributes.text("PatientName").split("=")[:_GROUPS]
    return FilmDescription(
        names=tuple(_printable(group)[:_LONGEST_NAME] for group in groups),
        sex=valid_sex(attributes.text("PatientSex").strip()),
        age=_age(attributes),
        view=_printable(attributes.text("ViewPosition")).upper(),
    )


def _age(attributes: Attributes) -> str:
    """Return Patient's Age, or else the years between birth and study."""
    if stated := valid_age(attributes.text("PatientAge").strip()):
        return stated
    born = _date(attributes.text("PatientBirthDate"))
    taken = next((day for keyword in _DAYS if (day := _date(attributes.text(keyword)))), None)
    if born is None or taken is None:
        return ""
    years = taken.year - born.year - ((taken.month, taken.day) < (born.month, born.day))
    return f"{years:03}Y" if 0 <= years <= 999 else ""


def _date(value: str) -> date | None:
    day = valid_date(value.strip())
    return date(int(day[:4]), int(day[4:6]), int(day[6:])) if day else None


def _printable(value: str) -> str:
    return " ".join("".join(each if each.isprintable() else " " for each in value).split())
