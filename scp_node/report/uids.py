"""UIDs of what we make: derived from what it says, so that a step that runs twice makes one object, not two."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any, Final

NAMESPACE: Final = uuid.UUID("511622f5-97b8-4509-a620-202e4ed161e9")  # drawn once; a change makes every UID a new one


def derived_uid(kind: str, *key: str) -> str:
    """Return the UID of the object of this `kind` and `key`: always the same one (PS3.5 Section B.2)."""
    return f"2.25.{uuid.uuid5(NAMESPACE, _canonical([kind, *key])).int}"


def digest(content: Any) -> str:
    """Return the SHA-256 of a value made of lists, strings and numbers, as 64 hexadecimal digits."""
    return hashlib.sha256(_canonical(content).encode()).hexdigest()


def _canonical(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"), allow_nan=False)
