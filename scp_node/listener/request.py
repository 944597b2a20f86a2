"""An A-ASSOCIATE-RQ PDU (PS3.8 section 9.3.2) as senders write it, and the same PDU as pynetdicom reads it.

pynetdicom raises for a title with a NUL, a blank title and an item that it does not know, and accepts one version only.
Here the titles and the version are read, so that the node accepts or rejects by the standard.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from scp_node.dicom.encoding import DamagedError

ASSOCIATE_RQ: Final = 0x01  # PDU type

_FIXED: Final = struct.Struct(">BxLHH16s16s32s")  # type, length, version, reserved, called, calling, reserved
_ITEM: Final = struct.Struct(">BxH")
_VERSION_1: Final = 0x0001
_APPLICATION_CONTEXT: Final = 0x10
_PRESENTATION_CONTEXT: Final = 0x20
_TRANSFER_SYNTAX: Final = 0x40
_USER_INFORMATION: Final = 0x50
# Maximum length, implementation class, roles. The node makes no use of the others of PS3.7 section D.3.3, and gives no
# answer to them: then none is agreed upon.
_MAXIMUM_LENGTH: Final = 0x51
_USER_ITEMS: Final = frozenset({_MAXIMUM_LENGTH, 0x52, 0x54})
_LEAST_LENGTH: Final = 7  # bytes of a P-DATA PDU, PS3.8 section D.1.1: six before the data, and one of it
_MOST_ITEMS: Final = 256  # in a request, a context or the user information: twice as many as there can be contexts
_NO_SYNTAX: Final = b"1.2"  # in a context that proposes none: nobody supports it, so the context is rejected alone
_SOME_TITLE: Final = "UNKNOWN"  # in place of one that is none


class Stated(NamedTuple):
    """What a requestor says of itself; the titles are without padding and may be none."""

    protocol_version: int
    called_ae: str
    calling_ae: str


def read_request(pdu: bytes) -> tuple[bytes, Stated | None]:
    """Return a whole A-ASSOCIATE-RQ PDU as pynetdicom reads it, and what it says; None where it is too short."""
    if len(pdu) < _FIXED.size:
        return pdu, None
    kind, _, version, reserved, called, calling, unused = _FIXED.unpack_from(pdu)
    stated = Stated(version, _title(called), _title(calling))
    found = list(_items(pdu[_FIXED.size :]))
    if _USER_INFORMATION not in {kind for kind, _ in found}:
        found.append((_USER_INFORMATION, _encoded(_USER_INFORMATION, b"")))
    items = b"".join(_mended(kind, item) for kind, item in found)
    fixed = _FIXED.pack(
        kind,
        _FIXED.size - 6 + len(items),
        _VERSION_1,
        reserved,
        _field(stated.called_ae),
        _field(stated.calling_ae),
        unused,
    )
    return fixed + items, stated


def is_ae_title(text: str) -> bool:
    """Return whether the text is an AE title (PS3.5 Table 6.2-1): 1 to 16 printable ASCII characters, no backslash."""
    return 1 <= len(text.strip()) <= 16 and text.isascii() and text.isprintable() and "\\" not in text


def _title(field: bytes) -> str:
    """Return an AE title; NULs are padding like spaces, and what follows one is the rest of an older string."""
    return field.strip(b" \0").partition(b"\0")[0].strip(b" ").decode("latin-1")


def _field(title: str) -> bytes:
    return (title if is_ae_title(title) else _SOME_TITLE).encode("ascii").ljust(16)


def _mended(kind: int | None, item: bytes) -> bytes:
    """Return an item as pynetdicom reads it: nothing of an unknown type, and as it is where it is not complete."""
    content = item[_ITEM.size :]
    if kind == _PRESENTATION_CONTEXT:
        return _encoded(kind, content[:4] + _context_items(content[4:]))
    if kind == _USER_INFORMATION:
        return _encoded(kind, _user_items(content))
    return item if kind in {None, _APPLICATION_CONTEXT} else b""


def _user_items(content: bytes) -> bytes:
    """Return the items that the node makes use of; a requestor that names no maximum length sets no limit.

    Raises:
        DamagedError: its limit leaves no room for data, so that no answer could be sent.
    """
    kept = [(kind, part) for kind, part in _items(content) if kind is None or kind in _USER_ITEMS]
    limits = [int.from_bytes(part[_ITEM.size :], "big") for kind, part in kept if kind == _MAXIMUM_LENGTH]
    if any(0 < limit < _LEAST_LENGTH for limit in limits):
        raise DamagedError("maximum length leaves no room for data")
    without_limit = b"" if limits else _encoded(_MAXIMUM_LENGTH, bytes(4))
    return without_limit + b"".join(part for _, part in kept)


def _context_items(content: bytes) -> bytes:
    """Return abstract and transfer syntaxes; there is one transfer syntax at least."""
    kept = [(kind, part) for kind, part in _items(content) if kind != _TRANSFER_SYNTAX or len(part) > _ITEM.size]
    proposes = any(kind == _TRANSFER_SYNTAX for kind, _ in kept)
    return b"".join(part for _, part in kept) + (b"" if proposes else _encoded(_TRANSFER_SYNTAX, _NO_SYNTAX))


def _encoded(kind: int, content: bytes) -> bytes:
    return _ITEM.pack(kind, len(content)) + content


def _items(data: bytes) -> Iterator[tuple[int | None, bytes]]:
    """Yield type and bytes of each item; the type is None for a rest that is no complete item.

    Raises:
        DamagedError: there are more than anybody needs; to read them takes long.
    """
    begin = number = 0
    while begin < len(data):
        number += 1
        if number > _MOST_ITEMS:
            raise DamagedError("too many items")
        kind, end = None, len(data)
        if begin + _ITEM.size <= len(data):
            kind, length = _ITEM.unpack_from(data, begin)
            end = begin + _ITEM.size + length
        yield (kind if end <= len(data) else None), data[begin:end]
        begin = end
