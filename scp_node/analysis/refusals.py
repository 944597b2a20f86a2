"""The reason that is reported for each fault of an image's pixels: one table, without a default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pneumonia_model.decoding import Mended, PixelDefect, UnreadablePixels

from scp_node.domain import NotAnalysed, Note, Reason

REASONS: Final[Mapping[PixelDefect, Reason]] = {
    PixelDefect.MISSING: Reason.NOT_AN_IMAGE,
    PixelDefect.ATTRIBUTE: Reason.UNREADABLE_HEADER,
    PixelDefect.NOT_ONE_FRAME: Reason.MULTI_FRAME,
    PixelDefect.COLOUR: Reason.COLOUR,
    PixelDefect.FORM: Reason.PIXEL_FORM,
    PixelDefect.SIZE: Reason.IMAGE_SIZE,
    PixelDefect.DEPTH: Reason.UNREADABLE_PIXELS,
    PixelDefect.SYNTAX: Reason.UNREADABLE_PIXELS,
    PixelDefect.LENGTH: Reason.UNREADABLE_PIXELS,
    PixelDefect.DAMAGED: Reason.UNREADABLE_PIXELS,
    PixelDefect.MISMATCH: Reason.UNREADABLE_PIXELS,
    PixelDefect.BITS: Reason.UNREADABLE_PIXELS,
    PixelDefect.DISPLAY: Reason.DISPLAY_ATTRIBUTES,
}

NOTES: Final[Mapping[Mended, Note]] = {
    Mended.FRAMES: Note.NO_FRAMES,
    Mended.PADDING: Note.PIXELS_PADDED,
    Mended.NUMBERS: Note.DISPLAY_MENDED,
    Mended.TABLE: Note.TABLE_SCALED,
}


def refusal(unreadable: UnreadablePixels) -> NotAnalysed:
    """Return why an image with such pixels gets no score; the detail names the attributes at fault.

    Raises:
        MemoryError: the image was not read for want of memory.
    """
    if isinstance(unreadable.__cause__, MemoryError):
        raise unreadable.__cause__
    return refused(unreadable.defect, *unreadable.attributes)


def refused(defect: PixelDefect, *attributes: str) -> NotAnalysed:
    """Return why an image with this defect, in these attributes, gets no score."""
    reason, named = REASONS[defect], ", ".join(attributes)
    if named and not reason.names_attributes:
        named = f"{defect}: {named}"
    return NotAnalysed(reason=reason, detail=named or str(defect))
