"""The one place that says what pydicom and pynetdicom raise while they read the bytes of a peer: anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def foreign_bytes(
    as_: Exception | Callable[[Exception], Exception], *, passing: type[Exception] | tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Raise `as_`, or what it makes of the error, for whatever a library raises in the block.

    The libraries let out what the bytes provoke, from KeyError to RecursionError, and MemoryError for a length that
    nothing backs. Their messages are dropped, not chained: they may quote values of the patient.

    Args:
        as_: the error of this program, or a function that makes one of the library's.
        passing: errors that do not speak of the bytes, and pass as they are.
    """
    try:
        yield
    except passing:
        raise
    except Exception as error:  # noqa: BLE001 - it is raised again, as an error of this program
        raise (as_ if isinstance(as_, Exception) else as_(error)) from None
