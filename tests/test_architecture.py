"""docs/architecture.md names every room of the tree, and nothing that is not there."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOTS: Final = ("scp_node", "model/pneumonia_model", "training/pneumonia_training")
NAMED: Final = re.compile(r"`([\w./]+?(?:\.py|/))`")  # a file or a folder


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "architecture.md").read_text(encoding="utf-8")


def rooms(folder: Path) -> Iterator[str]:
    """Yield the names at the top of a package, as the page writes them."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (path / "__init__.py").exists():
            yield f"{path.name}/"
        elif path.suffix == ".py" and path.name != "__init__.py":
            yield path.name


def first_cells(page: str, heading: str) -> list[str]:
    """Return the first cells of the rows of a table."""
    table, _, _ = page[page.index(heading) :].partition("\n\n")
    return [line.split("|", maxsplit=2)[1].strip() for line in table.splitlines()[2:]]


def missing(page: str, repository: Path) -> list[str]:
    """Return the files and folders that the page names and that are not there."""
    places = [repository, repository / "scp_node", *(repository / root for root in ROOTS)]
    inner = [folder for folder in (repository / "scp_node").iterdir() if folder.is_dir()]
    return [
        name
        for name in dict.fromkeys(NAMED.findall(page))
        if not any((place / name).exists() for place in (*places, *inner))
    ]


def test_every_room_of_the_node_is_on_the_page(page: str, repository: Path) -> None:
    firsts = "\n".join(first_cells(page, "| room | holds |"))
    assert [name for name in rooms(repository / "scp_node") if f"`{name}`" not in firsts] == []


def test_every_wing_of_the_training_is_on_the_page(page: str, repository: Path) -> None:
    names = list(rooms(repository / "training" / "pneumonia_training"))
    assert len(names) > 5
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_file_on_the_page_is_there(page: str, repository: Path) -> None:
    assert len(NAMED.findall(page)) > 60
    assert missing(page, repository) == []


def test_a_file_that_is_not_there_would_be_seen(repository: Path) -> None:
    assert missing("see `loops/nowhere.py` and `ledger/audit.py`", repository) == ["loops/nowhere.py"]


def test_the_rooms_stand_in_the_order_of_the_layers(page: str, repository: Path) -> None:
    contracts = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    rows = [set(re.findall(r"`(\w+)(?:\.py|/)`", cell)) for cell in first_cells(page, "| room | holds |")]
    assert rows == [set(re.findall(r"\w+", layer)) for layer in layers]


def test_the_words_are_explained_in_order(page: str) -> None:
    words = first_cells(page, "| word | meaning |")
    assert len(words) >= 20
    assert words == sorted(words)


def test_contributing_names_the_targets_that_make_has(repository: Path) -> None:
    guide = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^make ([a-z-]+)", guide, flags=re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {"setup-dev", "check", "test"} <= told <= targets
