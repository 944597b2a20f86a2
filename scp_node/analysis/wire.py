"""What the node and its decoder processes say to each other.

Nothing here can run code: a decoder reads hostile bytes with C libraries, so the node never unpickles what it wrote.
Requests are lines of JSON. A reply is three numbers, a JSON object, and the network's input where there is one.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from scp_node.analysis.eligibility import Equipment
from scp_node.analysis.pixels import INPUT_SHAPE, Prepared
from scp_node.domain import NotAnalysed, Note, Reason
from scp_node.settings import AnalysisSettings

_HEAD: Final = struct.Struct("<III")  # number of the request, bytes of JSON, bytes of input
_INPUT: Final = np.dtype("<f4")
_INPUT_BYTES: Final = INPUT_SHAPE[0] * INPUT_SHAPE[1] * _INPUT.itemsize
_MOST_JSON_BYTES: Final = 65_536


class GarbledReplyError(Exception):
    """A decoder wrote something that is no reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a decoder process is told first."""

    rules: AnalysisSettings
    own: Equipment | None
    memory_mib: int

    def encode(self) -> bytes:
        """Return the line that says it."""
        own = asdict(self.own) if self.own else None
        return _line({"rules": self.rules.model_dump(mode="json"), "own": own, "memory_mib": self.memory_mib})

    @classmethod
    def decode(cls, line: bytes) -> Setup:
        """Return what the line says."""
        said = json.loads(line)
        own = Equipment(**said["own"]) if said["own"] else None
        return cls(rules=AnalysisSettings(**said["rules"]), own=own, memory_mib=said["memory_mib"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The decoder process has started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory:
    """The image needs more memory than a decoder process may have."""


Answer = Prepared | NotAnalysed | Ready | OutOfMemory


def encode_request(number: int, path: Path) -> bytes:
    """Return the line that asks for one image."""
    return _line({"number": number, "path": str(path)})


def decode_request(line: bytes) -> tuple[int, Path]:
    """Return the number of the request and the file it is about."""
    said = json.loads(line)
    return said["number"], Path(said["path"])


def encode_reply(number: int, answer: Answer) -> bytes:
    """Return the bytes of a reply."""
    said: dict[str, Any] = {"kind": type(answer).__name__}
    inputs = b""
    if isinstance(answer, Prepared):
        said |= {"notes": answer.notes, "input_stats": dict(answer.input_stats)}
        inputs = answer.inputs.astype(_INPUT, copy=False).tobytes()
    elif isinstance(answer, NotAnalysed):
        said |= {"reason": answer.reason, "detail": answer.detail}
    text = json.dumps(said).encode()
    return _HEAD.pack(number, len(text), len(inputs)) + text + inputs


def take_reply(received: bytearray) -> tuple[int, Answer] | None:
    """Remove a whole reply from what was received and return it, None as long as it is not whole.

    Raises:
        GarbledReplyError: this is no reply, nor the beginning of one.
    """
    if len(received) < _HEAD.size:
        return None
    number, text_bytes, input_bytes = _HEAD.unpack_from(received)
    if text_bytes > _MOST_JSON_BYTES or input_bytes not in {0, _INPUT_BYTES}:
        raise GarbledReplyError
    end = _HEAD.size + text_bytes + input_bytes
    if len(received) < end:
        return None
    text = bytes(received[_HEAD.size : _HEAD.size + text_bytes])
    inputs = bytes(received[_HEAD.size + text_bytes : end])
    del received[:end]
    try:
        return number, _answer(json.loads(text), inputs)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GarbledReplyError from error


def _answer(said: dict[str, Any], inputs: bytes) -> Answer:
    match said["kind"]:
        case "Prepared":
            return Prepared(
                inputs=np.frombuffer(inputs, dtype=_INPUT).reshape(INPUT_SHAPE),
                notes=tuple(Note(note) for note in said["notes"]),
                input_stats={str(name): float(value) for name, value in said["input_stats"].items()},
            )
        case "NotAnalysed":
            return NotAnalysed(reason=Reason(said["reason"]), detail=str(said["detail"]))
        case "Ready":
            return Ready()
        case "OutOfMemory":
            return OutOfMemory()
    raise GarbledReplyError


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
