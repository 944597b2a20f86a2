"""The one place in the listener that catches everything: a bug in one request leaves all others alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

_Value = TypeVar("_Value")

log = logging.getLogger(__name__)


def attempt(step: Callable[[], _Value], failure: str, *details: object) -> _Value | None:
    """Return what `step` returns; None after it has raised, with `failure` and its `details` in the log."""
    try:
        return step()
    except Exception:
        log.exception(failure, *details)
        return None
