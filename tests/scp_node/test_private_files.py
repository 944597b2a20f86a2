"""What the node writes is for its owner alone, however open the umask is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from scp_node.opening import INSTALLATION_ID, MARKER, installation_id, upgrade_database
from scp_node.private_files import make_private_folder, write_private
from scp_node.settings import Settings
from scp_node.spool import Spool

WRITES: Final = re.compile(
    r"""\.write_text\(|\.write_bytes\(|\.mkdir\(|\.touch\(|mkstemp|mkdtemp|open\([^)\n]*["'](?:[wax]b?\+?|x\+b)["']"""
)
BY_THE_DOOR: Final = re.compile(r"opener=opener|mode=F(?:ILE|OLDER)_MODE|TemporaryFile|os\.dup")
FOR_PHANTOMS: Final = {"pacs.py", "__main__.py"}  # of `make demo`, below a folder that is made for it alone


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))}


def test_a_folder_and_those_above_it_that_are_missing_are_made_for_the_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o755)
    make_private_folder(tmp_path / "there" / "a" / "b")
    assert modes(tmp_path / "there") == {"there": 0o755, "a": 0o700, "b": 0o700}
    make_private_folder(tmp_path / "there")
    assert modes(tmp_path / "there")["there"] == 0o755


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o666)
    write_private(tmp_path / "file", b"secret")
    assert modes(tmp_path)["file"] == 0o600


def test_all_that_a_start_makes_is_for_the_owner_alone(tmp_path: Path) -> None:
    data = tmp_path / "made" / "var"
    settings = Settings(node={"data_dir": data})
    Spool(data / "spool", low_water_bytes=0)
    installation_id(data)
    upgrade_database(settings)
    found = modes(tmp_path / "made")
    assert {INSTALLATION_ID, MARKER, "ledger.sqlite3", "spool"} <= set(found)
    assert {name: mode for name, mode in found.items() if mode & 0o077} == {}


def test_nothing_is_written_past_this_door(repository: Path) -> None:
    found = []
    number = 0
    for path in sorted((repository / "scp_node").rglob("*.py")):
        if path.name == "private_files.py" or path.name in FOR_PHANTOMS:
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            if WRITES.search(line):
                number += 1
                if not BY_THE_DOOR.search(line):
                    found.append(f"{path.name}: {line.strip()}")
    assert number > 4
    assert found == []
