"""The list of studies as a file: CSV for a spreadsheet, JSON, and Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import IO, Final

from scp_node.ledger import WORKLIST_FIELDS, WorklistRow
from scp_node.web.cells import harmless_cell

_ROWS: Final = 200  # in one piece of the answer
_ROW_GROUP: Final = 10_000
_IN_MEMORY: Final = 8 * 2**20  # bytes of a Parquet file before it goes to a temporary file
_CHUNK: Final = 2**18
_NUMBERS: Final = frozenset({"probability", "threshold", "grey_zone"})
_INTEGERS: Final = frozenset({"images", "report_version"})
_BOOLEANS: Final = frozenset({"interrupted"})


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
    """Yield a Parquet file with the columns of the CSV, instants as text in ISO 8601."""
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        _write_parquet(file, rows)
        file.seek(0)
        while chunk := file.read(_CHUNK):
            yield chunk


def _write_parquet(file: IO[bytes], rows: Iterable[WorklistRow]) -> None:
    import pyarrow as pa  # noqa: PLC0415 - seldom needed, and not everywhere installed
    from pyarrow import parquet  # noqa: PLC0415

    types = {"number": pa.float64(), "integer": pa.int64(), "boolean": pa.bool_(), "text": pa.string()}
    schema = pa.schema([(name, types[_type(name)]) for name in WORKLIST_FIELDS])
    with parquet.ParquetWriter(file, schema) as writer:
        for some in _pieces(rows, _ROW_GROUP):
            writer.write_table(pa.Table.from_pylist([row.document() for row in some], schema=schema))


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
