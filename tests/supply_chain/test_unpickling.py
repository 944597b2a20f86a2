"""No process of the node unpickles anything: a pickle runs code, and what the node reads comes from peers and files.

The node's processes speak to each other by rows of the ledger, files and bytes of a fixed form (`decoders/wire.py`),
never through multiprocessing, which pickles. Training does use it, between processes of one program.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from scp_node.demo.pacs import StoragePacs
from tests.node import Node, destination, radiograph
from tests.supply_chain.locks import REPOSITORY

SITE: Final = Path(__file__).resolve().parent / "site" / "sitecustomize.py"


@pytest.fixture
def watched(tmp_path: Path) -> dict[str, str]:
    """The environment in which every process notes what it unpickles."""
    (tmp_path / "site" / "unpicklings").mkdir(parents=True)
    shutil.copy(SITE, tmp_path / "site")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(REPOSITORY)])}


def notes(folder: Path) -> dict[str, list[str]]:
    """Return the command of each process that began, and what it unpickled."""
    files = [file.read_text().splitlines() for file in (folder / "site" / "unpicklings").iterdir()]
    return {command: unpickled for command, *unpickled in files}


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_a_film_is_received_read_reported_and_sent_and_nothing_is_unpickled(
    backend: str, tmp_path: Path, watched: dict[str, str]
) -> None:
    pacs = StoragePacs(tmp_path / "pacs")
    changes = {"destinations": [destination(pacs.port)], "inference": {"backend": backend}, "web": {"enabled": True}}
    node = Node(tmp_path, changes, environment=watched)
    try:
        node.start()
        assert node.send(radiograph(1, opacity=True)) == [0x0000]
        [row] = node.run_until_idle(1)
    finally:
        node.end()
        pacs.close()
    assert [(sent["kind"], sent["state"]) for sent in row["deliveries"]] == [
        ("report", "delivered"),
        ("overlay", "delivered"),
    ]
    assert f"backend={backend}" in node.log
    found = notes(tmp_path)
    assert {command: unpickled for command, unpickled in found.items() if unpickled} == {}
    for role in ("listener", "worker", "reporter", "sender", "web", "decoders"):
        assert any(role in command for command in found), role


@pytest.mark.parametrize(
    "program",
    [
        "pickle.loads({pickled!r})",
        "pickle.Unpickler(io.BytesIO({pickled!r})).load()",
        "import _pickle; _pickle.loads({pickled!r})",
        "import numpy; numpy.load(io.BytesIO({pickled!r}), allow_pickle=True)",
        "import multiprocessing as m; a, b = m.Pipe(); a.send(1); b.recv()",
    ],
)
def test_an_unpickling_would_be_seen(program: str, tmp_path: Path, watched: dict[str, str]) -> None:
    code = "import io, pickle\n" + program.format(pickled=pickle.dumps(Path))
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **watched}, check=True)
    [unpickled] = notes(tmp_path).values()
    assert unpickled
