"""The messages between the node and its decoder processes.

No message can run code: a decoder reads hostile bytes with C libraries, so the node never unpickles its output. A
request is a line of JSON. A reply is three numbers, a JSON object, and the network's input or the picture, if any.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scp_node.analysis.eligibility import Equipment
from scp_node.analysis.pixels import INPUT_SHAPE, PICTURE_SIDE, Picture, Prepared
from scp_node.domain import NotAnalysed, Note, Reason
from scp_node.settings import AnalysisSettings

_HEAD: Final = struct.Struct("<III")  # number of the request, bytes of JSON, bytes of pixels
_INPUT: Final = np.dtype("<f4")
_INPUT_BYTES: Final = INPUT_SHAPE[0] * INPUT_SHAPE[1] * _INPUT.itemsize
_MOST_PIXEL_BYTES: Final = max(_INPUT_BYTES, PICTURE_SIDE * PICTURE_SIDE)
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


Answer = Prepared | Picture | Compared | NotAnalysed | Ready | OutOfMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a decoder is asked about one image: for the network's input, unless one of the others is set."""

    path: Path
    picture: bool = False  # for the picture that people see
    other: Path | None = None  # whether this file holds the same film


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A numbered question."""

    number: int
    question: Question

    def encode(self) -> bytes:
        """Return the message as a line."""
        asked = self.question
        other = None if asked.other is None else str(asked.other)
        return _line({"number": self.number, "path": str(asked.path), "picture": asked.picture, "other": other})

    @classmethod
    def decode(cls, line: bytes) -> Request:
        """Return the message of a line."""
        fields = json.loads(line)
        other = None if fields["other"] is None else Path(fields["other"])
        question = Question(path=Path(fields["path"]), picture=fields["picture"], other=other)
        return cls(number=fields["number"], question=question)


def encode_reply(number: int, answer: Answer) -> bytes:
    """Return the bytes of a reply."""
    fields: dict[str, Any] = {"kind": type(answer).__name__}
    pixels = b""
    if isinstance(answer, Prepared):
        fields |= {"notes": answer.notes, "input_stats": dict(answer.input_stats)}
        pixels = answer.inputs.astype(_INPUT, copy=False).tobytes()
    elif isinstance(answer, Picture):
        fields |= {"rows": answer.display.shape[0]}
        pixels = answer.display.tobytes()
    elif isinstance(answer, Compared):
        fields |= {"same": answer.same}
    elif isinstance(answer, NotAnalysed):
        fields |= {"reason": answer.reason, "detail": answer.detail}
    text = json.dumps(fields).encode()
    return _HEAD.pack(number, len(text), len(pixels)) + text + pixels


def take_reply(received: bytearray) -> tuple[int, Answer] | None:
    """Remove a whole reply from `received` and return it; None until it is whole.

    Raises:
        GarbledReplyError: the bytes are not a reply or the beginning of one.
    """
    if len(received) < _HEAD.size:
        return None
    number, text_bytes, pixel_bytes = _HEAD.unpack_from(received)
    if text_bytes > _MOST_JSON_BYTES or pixel_bytes > _MOST_PIXEL_BYTES:
        raise GarbledReplyError
    end = _HEAD.size + text_bytes + pixel_bytes
    if len(received) < end:
        return None
    text = bytes(received[_HEAD.size : _HEAD.size + text_bytes])
    pixels = bytes(received[_HEAD.size + text_bytes : end])
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
        case "Compared":
            return Compared(same=fields["same"] is True)
        case "NotAnalysed":
            return NotAnalysed(reason=Reason(fields["reason"]), detail=str(fields["detail"]))
        case "Ready":
            return Ready()
        case "OutOfMemory":
            return OutOfMemory()
    raise GarbledReplyError


def _display(pixels: bytes, *, rows: int) -> NDArray[np.uint8]:
    display = np.frombuffer(pixels, dtype=np.uint8).reshape(rows, -1)
    if not display.size or max(display.shape) > PICTURE_SIDE:
        raise GarbledReplyError
    return display


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
