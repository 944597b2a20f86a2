"""The messages between the node and its decoder processes.

No message can run code: a decoder reads hostile bytes with C libraries, so the node never unpickles its output. A
request is a line of JSON. A reply is three numbers, a JSON object, and pixels: those of the network's input, of the
picture or of the film, if any.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scp_node.analysis.answers import (
    FILM_SIDE,
    INPUT_SHAPE,
    LARGEST_FILM,
    LEVELS,
    PICTURE_SIDE,
    Equipment,
    Film,
    FilmView,
    Picture,
    Prepared,
)
from scp_node.domain import NotAnalysed, Note, Reason
from scp_node.settings import AnalysisSettings

_HEAD: Final = struct.Struct("<III")  # number of the request, bytes of JSON, bytes of pixels
_INPUT: Final = np.dtype("<f4")
_LEVEL: Final = np.dtype("<u2")
_MOST_JSON_BYTES: Final = 65_536


class GarbledReplyError(Exception):
    """A decoder wrote something other than a reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The first message to a decoder process."""

    rules: AnalysisSettings
    own: Equipment | None
    memory_mib: int

    def encode(self) -> bytes:
        """Return the message as a line."""
        own = asdict(self.own) if self.own else None
        return _line({"rules": self.rules.model_dump(mode="json"), "own": own, "memory_mib": self.memory_mib})

    @classmethod
    def decode(cls, line: bytes) -> Setup:
        """Return the message of a line."""
        fields = json.loads(line)
        own = Equipment(**fields["own"]) if fields["own"] else None
        return cls(rules=AnalysisSettings(**fields["rules"]), own=own, memory_mib=fields["memory_mib"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The decoder process has started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory:
    """The image needs more memory than a decoder process may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Whether two files hold one film."""

    same: bool


_WITHOUT_FIELDS: Final[Mapping[str, Ready | OutOfMemory]] = {"Ready": Ready(), "OutOfMemory": OutOfMemory()}

Answer = Prepared | Picture | Film | Compared | NotAnalysed | Ready | OutOfMemory


class Wanted(StrEnum):
    """What a decoder makes of an image."""

    INPUT = "input"  # the network's
    PICTURE = "picture"  # for people, in 8 bits
    FILM = "film"  # for a viewer, the long side at most FILM_SIDE
    WHOLE_FILM = "whole-film"  # for a viewer, as large as it is
    COMPARISON = "comparison"  # with another file: do both hold one film?


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question to a decoder about one image."""

    path: Path
    wanted: Wanted = Wanted.INPUT
    other: Path | None = None  # the file to compare with


NO_PIXELS: Final = 0


def most_pixel_bytes(wanted: Wanted) -> int:
    """Return how many bytes of pixels an answer may have."""
    match wanted:
        case Wanted.INPUT:
            return INPUT_SHAPE[0] * INPUT_SHAPE[1] * _INPUT.itemsize
        case Wanted.PICTURE:
            return PICTURE_SIDE * PICTURE_SIDE
        case Wanted.FILM:
            return FILM_SIDE * FILM_SIDE * _LEVEL.itemsize + LEVELS
        case Wanted.WHOLE_FILM:
            return LARGEST_FILM * _LEVEL.itemsize + LEVELS
        case Wanted.COMPARISON:
            return NO_PIXELS


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A numbered question."""

    number: int
    question: Question

    def encode(self) -> bytes:
        """Return the message as a line."""
        asked = self.question
        other = None if asked.other is None else str(asked.other)
        return _line({"number": self.number, "path": str(asked.path), "wanted": asked.wanted, "other": other})

    @classmethod
    def decode(cls, line: bytes) -> Request:
        """Return the message of a line."""
        fields = json.loads(line)
        other = None if fields["other"] is None else Path(fields["other"])
        question = Question(path=Path(fields["path"]), wanted=Wanted(fields["wanted"]), other=other)
        return cls(number=fields["number"], question=question)


def encode_reply(number: int, answer: Answer) -> bytes:
    """Return the bytes of a reply."""
    fields: dict[str, Any] = {"kind": type(answer).__name__}
    pixels: tuple[NDArray[Any], ...] = ()
    if isinstance(answer, Prepared):
        fields |= {"notes": answer.notes, "input_stats": dict(answer.input_stats)}
        pixels = (np.ascontiguousarray(answer.inputs, dtype=_INPUT),)
    elif isinstance(answer, Picture):
        fields |= {"rows": answer.display.shape[0]}
        pixels = (np.ascontiguousarray(answer.display),)
    elif isinstance(answer, Film):
        fields |= {"shape": answer.values.shape, "view": asdict(answer.view)}
        pixels = (np.ascontiguousarray(answer.values, dtype=_LEVEL), np.ascontiguousarray(answer.greys))
    elif isinstance(answer, Compared):
        fields |= {"same": answer.same}
    elif isinstance(answer, NotAnalysed):
        fields |= {"reason": answer.reason, "detail": answer.detail}
    text = json.dumps(fields).encode()
    size = sum(part.nbytes for part in pixels)
    head = _HEAD.pack(number, len(text), size)
    return b"".join((head, text, *(part.data for part in pixels)))  # copies a large film once


def take_reply(received: bytearray, most: int) -> tuple[int, Answer] | None:
    """Remove a whole reply with at most `most` bytes of pixels from `received`; None until it is whole.

    Raises:
        GarbledReplyError: the bytes are not a reply or the beginning of one.
    """
    if len(received) < _HEAD.size:
        return None
    number, text_bytes, pixel_bytes = _HEAD.unpack_from(received)
    if text_bytes > _MOST_JSON_BYTES or pixel_bytes > most:
        raise GarbledReplyError
    end = _HEAD.size + text_bytes + pixel_bytes
    if len(received) < end:
        return None
    text = bytes(received[_HEAD.size : _HEAD.size + text_bytes])
    with memoryview(received) as whole:
        pixels = bytes(whole[_HEAD.size + text_bytes : end])
    del received[:end]
    try:
        return number, _answer(json.loads(text), pixels)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GarbledReplyError from error


def _answer(fields: dict[str, Any], pixels: bytes) -> Answer:
    match fields["kind"]:
        case "Prepared":
            return Prepared(
                inputs=np.frombuffer(pixels, dtype=_INPUT).reshape(INPUT_SHAPE),
                notes=tuple(Note(note) for note in fields["notes"]),
                input_stats={str(name): float(value) for name, value in fields["input_stats"].items()},
            )
        case "Picture":
            return Picture(display=_display(pixels, rows=int(fields["rows"])))
        case "Film":
            return _film(fields, pixels)
        case "Compared":
            return Compared(same=fields["same"] is True)
        case "NotAnalysed":
            return NotAnalysed(reason=Reason(fields["reason"]), detail=str(fields["detail"]))
    return _WITHOUT_FIELDS[fields["kind"]]


def _display(pixels: bytes, *, rows: int) -> NDArray[np.uint8]:
    display = np.frombuffer(pixels, dtype=np.uint8).reshape(rows, -1)
    if not display.size or max(display.shape) > PICTURE_SIDE:
        raise GarbledReplyError
    return display


def _film(fields: dict[str, Any], pixels: bytes) -> Film:
    rows, columns = (int(side) for side in fields["shape"])
    if rows < 1 or columns < 1:
        raise GarbledReplyError
    values = np.frombuffer(pixels, dtype=_LEVEL, count=rows * columns).reshape(rows, columns)
    greys = np.frombuffer(pixels, dtype=np.uint8, offset=values.nbytes)
    if not 0 < greys.size <= LEVELS:
        raise GarbledReplyError
    return Film(values=values, greys=greys, view=_view(fields["view"]))


def _view(fields: dict[str, Any]) -> FilmView:
    numbers = {name: float(fields[name]) for name in ("centre", "width", "base", "step")}
    spacing = fields["spacing"] and (float(fields["spacing"][0]), float(fields["spacing"][1]))
    if not all(map(math.isfinite, (*numbers.values(), *(spacing or ())))) or numbers["width"] <= 0:
        raise GarbledReplyError
    return FilmView(
        **numbers,
        has_own_view=fields["has_own_view"] is True,
        rows=int(fields["rows"]),
        columns=int(fields["columns"]),
        spacing=spacing,
        spacing_from=str(fields["spacing_from"]),
    )


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
