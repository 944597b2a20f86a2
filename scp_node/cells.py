"""Cells of CSV files, which people open in a spreadsheet: none is run as a formula."""

from __future__ import annotations

import json
from typing import Final

# https://owasp.org/www-community/attacks/CSV_Injection; the full-width ones are taken for the others.
FORMULA_BEGINS: Final = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_MARK: Final = "'"


def harmless_cell(value: object) -> object:
    """Return a value as one cell that no spreadsheet runs as a formula: a peer or a person may have written it."""
    text = json.dumps(value) if isinstance(value, list | dict) else value
    return f"{_MARK}{text}" if isinstance(text, str) and _needs_mark(text) else text


def text_of(cell: str) -> str:
    """Return the text that `harmless_cell` made the cell of."""
    return cell[len(_MARK) :] if cell.startswith(_MARK) and _needs_mark(cell[len(_MARK) :]) else cell


def _needs_mark(text: str) -> bool:
    return text[:1] in FORMULA_BEGINS or text.startswith(_MARK)
