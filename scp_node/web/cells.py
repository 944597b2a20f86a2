"""Cells of tables that people open in a spreadsheet."""

from __future__ import annotations

import json
from typing import Final

_BEGIN_FORMULAS: Final = frozenset("=+-@\t\r")  # https://owasp.org/www-community/attacks/CSV_Injection


def harmless_cell(value: object) -> object:
    """Return a value as one cell that no spreadsheet runs as a formula: a peer may have written it."""
    text = json.dumps(value) if isinstance(value, list | dict) else value
    return f"'{text}" if isinstance(text, str) and text[:1] in _BEGIN_FORMULAS else text
