"""Text of a peer, made safe to log and to keep."""

from __future__ import annotations

import re
from typing import Final

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/@+*-]+")


def escaped(text: str, limit: int = 64) -> str:
    """Return the text as one word of printable ASCII: quoted with escapes unless it is plain, cut at `limit`."""
    if len(text) <= limit and _PLAIN.fullmatch(text):
        return text
    return ascii(text[:limit])
