"""Command sets of C-STORE (PS3.7 section 9.3.1), read and written as bytes: each store has two of them.

They are in Implicit VR Little Endian (PS3.7 section 6.3.1). What is not of the usual form is left to pynetdicom.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from pydicom.uid import UID
from pynetdicom.dimse_primitives import C_STORE

NO_DATASET: Final = 0x0101  # Command Data Set Type, PS3.7 section E.1

_HEADER: Final = struct.Struct("<HHL")
_US: Final = struct.Struct("<H")
_UL: Final = struct.Struct("<L")
_UID: Final = re.compile(rb"[0-9.]{1,64}\0?")
_STORE_RQ: Final = 0x0001
_STORE_RSP: Final = 0x8001

_GROUP_LENGTH: Final = 0x0000  # the elements of group 0000, PS3.7 section E.1
_SOP_CLASS_UID: Final = 0x0002
_COMMAND_FIELD: Final = 0x0100
_MESSAGE_ID: Final = 0x0110
_RESPONDED_TO: Final = 0x0120
_PRIORITY: Final = 0x0700
_DATASET_TYPE: Final = 0x0800
_STATUS: Final = 0x0900
_ERROR_COMMENT: Final = 0x0902
_SOP_INSTANCE_UID: Final = 0x1000
_MOVE_ORIGINATOR: Final = 0x1030  # of which the node makes no use
_MOVE_MESSAGE_ID: Final = 0x1031

_UIDS: Final = frozenset({_SOP_CLASS_UID, _SOP_INSTANCE_UID})
_NUMBERS: Final = frozenset({_COMMAND_FIELD, _MESSAGE_ID, _PRIORITY, _DATASET_TYPE, _MOVE_MESSAGE_ID})
_PRIORITIES: Final = frozenset({0, 1, 2})
_NEEDED: Final = _UIDS | {_COMMAND_FIELD, _MESSAGE_ID, _PRIORITY, _DATASET_TYPE}


def store_request(command: bytes) -> C_STORE | None:
    """Return a C-STORE request that a dataset follows, without that; None where the command set is anything else."""
    values = _values(command)
    if values is None or not values.keys() >= _NEEDED:
        return None
    if not all(_UID.fullmatch(values[number]) for number in _UIDS):
        return None
    if not all(len(values[number]) == _US.size for number in _NUMBERS & values.keys()):
        return None
    if _number(values, _COMMAND_FIELD) != _STORE_RQ or _number(values, _DATASET_TYPE) == NO_DATASET:
        return None
    if _number(values, _PRIORITY) not in _PRIORITIES:
        return None
    request = C_STORE()
    request.MessageID = _number(values, _MESSAGE_ID)
    request.Priority = _number(values, _PRIORITY)
    request.AffectedSOPClassUID = _uid(values, _SOP_CLASS_UID)
    request.AffectedSOPInstanceUID = _uid(values, _SOP_INSTANCE_UID)
    return request


def store_response(
    *, message_id: int, sop_class_uid: str | None, sop_instance_uid: str | None, status: int, comment: str
) -> bytes:
    """Return the command set of a C-STORE response; what is None or empty is left out."""
    elements = b"".join(
        (
            b"" if sop_class_uid is None else _text(_SOP_CLASS_UID, sop_class_uid, b"\0"),
            _element(_COMMAND_FIELD, _US.pack(_STORE_RSP)),
            _element(_RESPONDED_TO, _US.pack(message_id)),
            _element(_DATASET_TYPE, _US.pack(NO_DATASET)),
            _element(_STATUS, _US.pack(status)),
            _text(_ERROR_COMMENT, comment, b" ") if comment else b"",
            b"" if sop_instance_uid is None else _text(_SOP_INSTANCE_UID, sop_instance_uid, b"\0"),
        )
    )
    return _element(_GROUP_LENGTH, _UL.pack(len(elements))) + elements


def _values(command: bytes) -> dict[int, bytes] | None:
    """Return the values of a command set by their element number; None where it is not in order, or cut off."""
    values: dict[int, bytes] = {}
    offset, last = 0, -1
    while offset < len(command):
        if offset + _HEADER.size > len(command):
            return None
        group, number, length = _HEADER.unpack_from(command, offset)
        begin, offset = offset + _HEADER.size, offset + _HEADER.size + length
        if group or number <= last or offset > len(command):
            return None
        values[number] = command[begin:offset]
        last = number
    return values


def _number(values: dict[int, bytes], number: int) -> int:
    return int(_US.unpack(values[number])[0])


def _uid(values: dict[int, bytes], number: int) -> UID:
    return UID(values[number].rstrip(b"\0").decode("ascii"))


def _text(number: int, text: str, padding: bytes) -> bytes:
    value = text.encode("latin-1")  # a malformed UID goes back as it came
    return _element(number, value + padding * (len(value) % 2))


def _element(number: int, value: bytes) -> bytes:
    return _HEADER.pack(0, number, len(value)) + value
