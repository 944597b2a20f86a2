"""How a film lies, by its Patient Orientation (0020,0020)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from scp_node.analysis.vocabulary import says_nothing

_DIRECTION: Final = re.compile(r"[APRLHF]{1,3}")
_SEPARATOR: Final = re.compile(r"[/, ;|^-]+")  # of writers who do not know that PS3.5 separates values by a backslash
_AXES: Final = {"A": "depth", "P": "depth", "R": "width", "L": "width", "H": "height", "F": "height"}
_LETTERS: Final = {"ANTERIOR": "A", "POSTERIOR": "P", "RIGHT": "R", "LEFT": "L", "HEAD": "H", "FOOT": "F", "FEET": "F"}


class Orientation(Enum):
    """How a film lies, as far as its header says so."""

    UNSTATED = auto()  # nothing, or one direction that an upright film can have
    UPRIGHT = auto()
    MIRRORED = auto()  # upright, with the patient's right on the right of the picture
    TURNED = auto()  # on its side, or head down
    LATERAL = auto()  # rows or columns run from front to back
    UNCLEAR = auto()  # directions that no film has, or no directions


def stated_orientation(directions: Sequence[str]) -> Orientation:
    r"""Return how a film lies.

    PS3.3 C.7.6.1.1.1: the first value is the direction of the rows to the right, the second that of the columns
    downwards, each with up to three letters, the principal direction first. An upright frontal film has L\F, a tilted
    one may have L\FP. Consoles send L\F with lateral films as well, so it does not prove a frontal view.

    Args:
        directions: the values in capitals; an empty one is unknown.
    """
    directions = ["" if says_nothing(value) and not _is_direction(value) else value for value in directions]
    if len(directions) == 1:
        directions = _SEPARATOR.split(directions[0])
    directions = [_LETTERS.get(direction, direction) for direction in directions]
    if not any(directions):
        return Orientation.UNSTATED
    if len(directions) > 2 or not all(map(_is_direction, filter(None, directions))):
        return Orientation.UNCLEAR
    row, column = (direction[:1] for direction in (*directions, "")[:2])
    return _of_principal_directions(row, column)


def _of_principal_directions(row: str, column: str) -> Orientation:
    axes = [_AXES[letter] for letter in (row, column) if letter]
    if len(axes) != len(set(axes)):
        return Orientation.UNCLEAR
    if "depth" in axes:
        return Orientation.LATERAL
    if row in {"H", "F"} or column in {"H", "L", "R"}:
        return Orientation.TURNED
    if row and column:
        return Orientation.MIRRORED if row == "R" else Orientation.UPRIGHT
    return Orientation.UNSTATED


def _is_direction(direction: str) -> bool:
    if not _DIRECTION.fullmatch(direction):
        return False
    axes = [_AXES[letter] for letter in direction]
    return len(axes) == len(set(axes))  # no direction runs to the left and to the right
