"""The list of studies as a file: CSV for a spreadsheet, JSON, and Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from typing import IO, Final, cast

from scp_node.cells import harmless_cell
from scp_node.ledger import WORKLIST_FIELDS, WorklistRow

_ROWS: Final = 200  # in one piece of the answer
_CHUNK: Final = 2**18
_NUMBERS: Final = frozenset({"probability", "threshold", "grey_zone"})
_INTEGERS: Final = frozenset({"images", "report_version"})
_BOOLEANS: Final = frozenset({"interrupted"})
_PARQUET: Final = ("-P", "-m", "scp_node.web.parquet_program")  # -P: do not import from the working folder


class ExportError(Exception):
    """A file could not be written; the message says why."""


def as_csv(rows: Iterable[WorklistRow]) -> Iterator[str]:
    """Yield a CSV in UTF-8 (RFC 4180) with a byte order mark, without which Excel takes it for another encoding."""
    written = io.StringIO()
    writer = csv.DictWriter(written, fieldnames=WORKLIST_FIELDS)
    written.write("\N{BYTE ORDER MARK}")
    writer.writeheader()
    for some in _pieces(rows, _ROWS):
        writer.writerows({name: harmless_cell(value) for name, value in row.document().items()} for row in some)
        yield _taken(written)
    yield _taken(written)


def as_json(rows: Iterable[WorklistRow]) -> Iterator[str]:
    """Yield one JSON array, an object a line."""
    separator = "[\n"
    for some in _pieces(rows, _ROWS):
        yield separator + ",\n".join(json.dumps(row.document(), ensure_ascii=False) for row in some)
        separator = ",\n"
    yield "\n]\n" if separator == ",\n" else "[]\n"


def has_parquet() -> bool:
    """Return whether Parquet can be written here."""
    return importlib.util.find_spec("pyarrow") is not None


def as_parquet(rows: Iterable[WorklistRow]) -> Iterator[bytes]:
    """Return the pieces of a Parquet file with the columns of the CSV, instants as text in ISO 8601.

    Raises:
        ExportError: it could not be written.
    """
    with ExitStack() as undo:
        file = undo.enter_context(tempfile.TemporaryFile())
        _write_parquet(file, rows)
        undo.pop_all()  # the pieces close it
    return _read(file)


def _read(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while chunk := file.read(_CHUNK):
            yield chunk


def _write_parquet(file: IO[bytes], rows: Iterable[WorklistRow]) -> None:
    with (
        subprocess.Popen([sys.executable, *_PARQUET], stdin=subprocess.PIPE, stdout=file) as child,  # noqa: S603 - ours
        suppress(BrokenPipeError),  # if it has ended, its status tells
        cast("IO[bytes]", child.stdin) as lines,
    ):
        lines.write(_line({name: _type(name) for name in WORKLIST_FIELDS}))
        lines.writelines(_line(row.document()) for row in rows)
    if child.returncode:
        raise ExportError(f"the Parquet file was not written: its process ended with {child.returncode}")


def _line(value: Mapping[str, object]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _type(name: str) -> str:
    if name in _NUMBERS:
        return "number"
    if name in _INTEGERS:
        return "integer"
    return "boolean" if name in _BOOLEANS else "text"


def _pieces(rows: Iterable[WorklistRow], most: int) -> Iterator[Sequence[WorklistRow]]:
    left = iter(rows)
    while some := tuple(islice(left, most)):
        yield some


def _taken(written: io.StringIO) -> str:
    text = written.getvalue()
    written.seek(0)
    written.truncate()
    return text
