"""A cell of a CSV file is never run as a formula, and the text can be had back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from scp_node.cells import harmless_cell, text_of

WRITER: Final = re.compile(r"csv\.(?:Dict)?[wW]riter\(")


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'"])
def test_a_text_that_a_spreadsheet_may_run_is_marked_as_text(begin: str) -> None:
    text = f"{begin}1+cmd|' /C calc'!A0"
    assert harmless_cell(text) == f"'{text}"
    assert text_of(f"'{text}") == text


@pytest.mark.parametrize("value", ["1.2.840", "A-1", "", "it's", 0.5, -0.5, 7, True, None])
def test_what_is_no_formula_stays_as_it_is(value: object) -> None:
    assert harmless_cell(value) == value
    assert text_of("it's") == "it's"


def test_a_list_is_one_cell() -> None:
    assert harmless_cell([{"left": 1}]) == '[{"left": 1}]'


def test_every_csv_file_of_the_node_is_written_with_such_cells(repository: Path) -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in (repository / "scp_node").rglob("*.py")}
    writers = {name for name, text in texts.items() if WRITER.search(text)}
    assert writers == {"export.py", "tables.py", "truth_file.py"}
    assert {name for name in writers if "harmless_cell" not in texts[name]} == set()
