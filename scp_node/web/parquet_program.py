"""Writes a Parquet file, run as a program: it may need a hundred megabytes.

Standard input: a line of JSON with the type of each column, then one for each row. Standard output: the file.
"""

from __future__ import annotations

import json
import sys
from itertools import islice
from typing import IO, Final

import pyarrow as pa
from pyarrow import parquet

_ROW_GROUP: Final = 10_000
_TYPES: Final = {"number": pa.float64(), "integer": pa.int64(), "boolean": pa.bool_(), "text": pa.string()}


def write(lines: IO[bytes], file: IO[bytes]) -> None:
    """Write the rows of `lines` to `file`."""
    columns = json.loads(next(lines))
    schema = pa.schema([(name, _TYPES[kind]) for name, kind in columns.items()])
    with parquet.ParquetWriter(file, schema) as writer:
        while some := [json.loads(line) for line in islice(lines, _ROW_GROUP)]:
            writer.write_table(pa.Table.from_pylist(some, schema=schema))


if __name__ == "__main__":
    write(sys.stdin.buffer, sys.stdout.buffer)
