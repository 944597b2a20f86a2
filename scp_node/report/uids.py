"""UIDs of what we make: derived from what it says, so that a step that runs twice makes one object, not two."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

NAMESPACE = uuid.UUID("511622f5-97b8-4509-a620-202e4ed161e9")  # drawn once; a change makes every UID a new one
SEPARATOR = "\x1f"  # in no UID, digest or code


def derived_uid(kind: str, *key: str) -> str:
    """Return the UID of the object of this `kind` and `key`: always the same one (PS3.5 Section B.2).

    Raises:
        ValueError: a field holds the separator, so that two keys could be confused.
    """
    if any(SEPARATOR in field for field in (kind, *key)):
        raise ValueError("a field of a UID's key holds the separator")
    return f"2.25.{uuid.uuid5(NAMESPACE, SEPARATOR.join((kind, *key))).int}"


def digest(content: Any) -> str:
    """Return the SHA-256 of a value made of lists, mappings, strings and numbers, as 64 hexadecimal digits."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
