"""What becomes of a value that the standard does not allow.

Identifiers are never altered, not even invalid ones: a report that names another patient, study or order is worse than
an invalid one. Descriptions are cut; dates, times, ages and sexes are dropped.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Final

LONGEST_SH: Final = 16  # characters, PS3.5 Table 6.2-1
LONGEST_LO: Final = 64


def unaltered(value: str) -> str:
    """Return an identifier or a name as it is."""
    return value


def long_string(value: str) -> str:
    """Return a description as one LO: printable, not too long."""
    return _cut(value, LONGEST_LO)


def short_string(value: str) -> str:
    """Return a description as one SH: printable, not too long."""
    return _cut(value, LONGEST_SH)


def valid_date(value: str) -> str:
    """Return `value` if it is a DA and such a day exists, else nothing."""
    if not re.fullmatch(r"[0-9]{8}", value):
        return ""
    try:
        date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return ""
    return value


def valid_time(value: str) -> str:
    """Return `value` if it is a TM, else nothing."""
    # 60 is the leap second (PS3.5 Table 6.2-1)
    pattern = r"([01][0-9]|2[0-3])([0-5][0-9](([0-5][0-9]|60)(\.[0-9]{1,6})?)?)?"
    return value if re.fullmatch(pattern, value) else ""


def valid_age(value: str) -> str:
    """Return an AS: "64Y" gets its zero, "64" could be weeks and is nothing."""
    match = re.fullmatch(r"([0-9]{1,3})([DWMY])", value)
    return f"{int(match[1]):03}{match[2]}" if match else ""


def valid_sex(value: str) -> str:
    """Return `value` if it is one of the enumerated values (PS3.3 Table C.7-1), else nothing."""
    return value if value in {"M", "F", "O"} else ""


def decimal_string(value: str) -> str:
    """Return `value` if it is a DS (PS3.5 Table 6.2-1), with a point for a decimal comma, else nothing."""
    stripped = value.strip()
    if not re.fullmatch(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}", stripped):  # that comma might part thousands
        stripped = stripped.replace(",", ".")
    return (
        stripped
        if len(stripped) <= 16 and re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", stripped)
        else ""
    )


def _cut(value: str, longest: int) -> str:
    # a backslash would make two values of one
    printable = "".join(character if character.isprintable() and character != "\\" else " " for character in value)
    return printable[:longest].rstrip()
