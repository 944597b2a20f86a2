"""The same report in another SOP class, for a Storage SCP that does not take the first.

The content tree of our reports is valid in all three, and their UIDs are equally long: two values are exchanged in the
stored bytes and the rest stays as it is.
"""

from __future__ import annotations

import struct
from typing import Final

from pydicom.uid import ComprehensiveSRStorage, EnhancedSRStorage

from scp_node.report.kinds import ObjectKind

SOP_CLASSES: Final = (ObjectKind.REPORT.sop_class_uid, ComprehensiveSRStorage, EnhancedSRStorage)
# each is sent as it is, or not
COMPANION_SOP_CLASSES: Final = tuple(kind.sop_class_uid for kind in ObjectKind if kind is not ObjectKind.REPORT)

_PREAMBLE_LENGTH: Final = 132  # PS3.10 Section 7.1: 128 bytes and "DICM"
_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_MEDIA_STORAGE_SOP_CLASS_UID: Final = (0x0002, 0x0002)
_SOP_CLASS_UID: Final = (0x0008, 0x0016)


def with_sop_class(file: bytes, sop_class_uid: str) -> bytes:
    """Return the report `file` as `sop_class_uid`: equal but for Media Storage SOP Class UID and SOP Class UID.

    Raises:
        ValueError: `file` is not one of our reports, or the SOP class is not in `SOP_CLASSES`.
    """
    if sop_class_uid not in SOP_CLASSES:
        raise ValueError(f"a report cannot be stored as SOP class {sop_class_uid}")
    places = _places(file)
    patched = bytearray(file)
    for tag in (_MEDIA_STORAGE_SOP_CLASS_UID, _SOP_CLASS_UID):
        current = file[places[tag]] if tag in places else b""
        if current.rstrip(b"\0").decode("ascii", errors="replace") not in SOP_CLASSES:
            raise ValueError("the file is not one of our reports")
        patched[places[tag]] = sop_class_uid.encode().ljust(len(current), b"\0")
    return bytes(patched)


def _places(file: bytes) -> dict[tuple[int, int], slice]:
    """Return where the value of each element lies, up to SOP Class UID; the file is in Explicit VR Little Endian."""
    places: dict[tuple[int, int], slice] = {}
    position = _PREAMBLE_LENGTH
    try:
        while _SOP_CLASS_UID not in places:
            group, element, vr, length = struct.unpack_from("<HH2sH", file, position)
            position += 8
            if vr in _LONG_VRS:  # PS3.5 Section 7.1.2: two bytes are reserved, four hold the length
                (length,) = struct.unpack_from("<L", file, position)
                position += 4
            places[group, element] = slice(position, position + length)
            position += length
    except struct.error:
        raise ValueError("the file is not one of our reports") from None
    return places
