"""Reads View Position from a stored header, without the DICOM library: the web page's process does without it."""

from __future__ import annotations

from typing import Final

from scp_node.dicom.encoding import DamagedError, Walker
from scp_node.dicom.syntaxes import IMPLICIT_VR_LITTLE_ENDIAN

_VIEW_POSITION: Final = 0x0018_5101
_LONGEST: Final = 16  # bytes of a CS, PS3.5 Table 6.2-1


def view_position(header: bytes, transfer_syntax: str) -> str:
    """Return View Position (0018,5101) of a stored header in capitals, such as "PA"; "" where it cannot be read."""
    walker = Walker(memoryview(header), implicit=transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN, lenient=True)
    try:
        for element in walker.elements():
            if element.tag == _VIEW_POSITION:
                value = header[element.value : element.value + min(element.length, _LONGEST)]
                text = value.decode("ascii", "replace").strip(" \0").upper()
                return text if text.isprintable() and "\ufffd" not in text else ""
            if element.tag > _VIEW_POSITION:
                break
    except DamagedError:
        pass
    return ""
