"""The head of a DICOM file (PS3.10 section 7.1): preamble and file meta information, with the file's origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from scp_node.dicom.encoding import DamagedError, Element, Walker
from scp_node.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp_node.dicom.inspection import Origin, inspect
from scp_node.domain import Priority

PREAMBLE: Final = bytes(128) + b"DICM"

_GROUP_LENGTH: Final = 0x0002_0000
_VERSION: Final = 0x0002_0001
_MEDIA_STORAGE_SOP_CLASS_UID: Final = 0x0002_0002
_MEDIA_STORAGE_SOP_INSTANCE_UID: Final = 0x0002_0003
_TRANSFER_SYNTAX_UID: Final = 0x0002_0010
_IMPLEMENTATION_CLASS_UID: Final = 0x0002_0012
_IMPLEMENTATION_VERSION_NAME: Final = 0x0002_0013
_SOURCE_AE_TITLE: Final = 0x0002_0016
_SENDING_AE_TITLE: Final = 0x0002_0017
_RECEIVING_AE_TITLE: Final = 0x0002_0018
_SOURCE_PRESENTATION_ADDRESS: Final = 0x0002_0026
_GROUP_LENGTH_SIZE: Final = 12  # bytes of the element (0002,0000)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHead:
    """The values of the file meta information, and the offset of the dataset."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    calling_ae: str
    called_ae: str
    peer: str
    offset: int  # of the dataset in the file

    def origin(self, priority: Priority) -> Origin:
        """Return the origin of the dataset."""
        return Origin(
            calling_ae=self.calling_ae,
            called_ae=self.called_ae,
            peer=self.peer,
            transfer_syntax=self.transfer_syntax,
            priority=priority,
        )


def encode_head(sop_class_uid: str, sop_instance_uid: str, origin: Origin) -> bytes:
    """Return all bytes of the file before the dataset."""
    elements = b"".join(
        (
            _long(_VERSION, b"OB", b"\0\1"),
            _short(_MEDIA_STORAGE_SOP_CLASS_UID, b"UI", sop_class_uid),
            _short(_MEDIA_STORAGE_SOP_INSTANCE_UID, b"UI", sop_instance_uid),
            _short(_TRANSFER_SYNTAX_UID, b"UI", origin.transfer_syntax),
            _short(_IMPLEMENTATION_CLASS_UID, b"UI", IMPLEMENTATION_CLASS_UID),
            _short(_IMPLEMENTATION_VERSION_NAME, b"SH", IMPLEMENTATION_VERSION_NAME),
            _short(_SOURCE_AE_TITLE, b"AE", origin.calling_ae),
            _short(_SENDING_AE_TITLE, b"AE", origin.calling_ae),
            _short(_RECEIVING_AE_TITLE, b"AE", origin.called_ae),
            _long(_SOURCE_PRESENTATION_ADDRESS, b"UR", _padded(_address(origin.peer), b" ")),
        )
    )
    group_length = _tag(_GROUP_LENGTH) + b"UL" + (4).to_bytes(2, "little") + len(elements).to_bytes(4, "little")
    return PREAMBLE + group_length + elements


def decode_head(file: memoryview) -> FileHead:
    """Return the values of the file meta information.

    Raises:
        DamagedError: this is not a DICOM file, or its file meta information is cut off.
    """
    first = len(PREAMBLE)
    if bytes(file[first - 4 : first]) != b"DICM" or len(file) < first + _GROUP_LENGTH_SIZE:
        raise DamagedError("not a DICOM file")
    offset = first + _GROUP_LENGTH_SIZE + int.from_bytes(file[first + 8 : first + _GROUP_LENGTH_SIZE], "little")
    if offset > len(file):
        raise DamagedError("file meta information is cut off")
    values = {element.tag: _text(file, element) for element in Walker(file[:offset], implicit=False).elements(first)}
    return FileHead(
        sop_class_uid=values.get(_MEDIA_STORAGE_SOP_CLASS_UID, ""),
        sop_instance_uid=values.get(_MEDIA_STORAGE_SOP_INSTANCE_UID, ""),
        transfer_syntax=values.get(_TRANSFER_SYNTAX_UID, ""),
        calling_ae=values.get(_SENDING_AE_TITLE, ""),
        called_ae=values.get(_RECEIVING_AE_TITLE, ""),
        peer=urlsplit(values.get(_SOURCE_PRESENTATION_ADDRESS, "")).hostname or "",
        offset=offset,
    )


def repaired_file(file: memoryview) -> bytes | None:
    """Return a file as libraries read its dataset right; None where they do so as it is.

    None also of a file that the node would not have taken.
    """
    try:
        head = decode_head(file)
        dataset = file[head.offset :]
        repairs = inspect(dataset, head.transfer_syntax).repairs
    except DamagedError:
        return None
    return b"".join((file[: head.offset], repairs.applied(dataset))) if repairs.change(dataset) else None


def _address(host: str) -> str:
    return f"dicom://[{host}]" if ":" in host else f"dicom://{host}"  # PS3.10 section 7.1.1.1


def _text(file: memoryview, element: Element) -> str:
    return bytes(file[element.value : element.end]).decode("ascii", "replace").strip(" \0")


def _short(tag: int, vr: bytes, text: str) -> bytes:
    value = _padded(text, b"\0" if vr == b"UI" else b" ")
    return _tag(tag) + vr + len(value).to_bytes(2, "little") + value


def _long(tag: int, vr: bytes, value: bytes) -> bytes:
    return _tag(tag) + vr + bytes(2) + len(value).to_bytes(4, "little") + value


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii")
    return value + padding * (len(value) % 2)


def _tag(tag: int) -> bytes:
    return (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
