"""The one place in the listener that catches everything: a bug in one request leaves all others alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from scp_node.logs import get_logger

_Value = TypeVar("_Value")


log = get_logger(__name__)


def attempt(step: Callable[[], _Value], failure: str, **fields: object) -> _Value | None:
    """Return what `step` returns; None after it has raised, with `failure` and its `fields` in the log."""
    try:
        return step()
    except Exception:
        log.exception(failure, **fields)
        return None
