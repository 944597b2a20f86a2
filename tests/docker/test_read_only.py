"""What the image promises about a running node, by the kernel's own record: where it writes and whom it calls."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from scp_node.demo.pacs import StoragePacs
from tests.docker.files import Dockerfile
from tests.node import Node, destination, radiograph
from tests.tools import require
from tests.waiting import wait_until

CALLS: Final = (
    "connect,openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,"
    "unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat"
)
OPENED: Final = re.compile(r"open(?:at)?\(.*\bO_(?:WRONLY|RDWR|CREAT)\b.*\) = \d+<(?P<path>.*)>$")
CHANGED: Final = re.compile(r"(?:creat|mkdir|rename|unlink|rmdir|link|symlink)\w*\(.*\) = \d+")
NAMED: Final = re.compile(r'(?:\w+<(?P<folder>[^>]*)>, )?"(?P<name>[^"]*)"')
CALLED: Final = re.compile(r'connect\(.*inet_(?:addr|pton)\((?:AF_INET6, )?"(?P<address>[^"]*)"')
DEVICES: Final = ("/dev/null", "/dev/shm/", "/dev/tty", "/proc/")  # noqa: S108 - writable in every container


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the traced node has var/ for its data, tmp/ and nothing else that is its own."""
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module")
def trace(root: Path, repository: Path) -> list[str]:
    """The system calls of a node with the environment of the image that change a file or call somebody."""
    for name in ("tmp", "work"):
        (root / name).mkdir()
    image = Dockerfile((repository / "docker" / "Dockerfile").read_text()).environment("cpu")
    own = {name: value for name, value in image.items() if name.startswith(("PYTHON", "ORT_"))}
    pacs = StoragePacs(root / "pacs")
    node = Node(root, {"destinations": [destination(pacs.port)], "work": {"lease_seconds": 30}})
    try:
        with (root / "node.log").open("wb") as log:
            node.process = subprocess.Popen(
                [*strace(root / "trace"), sys.executable, "-m", "scp_node", "serve", "--config", node.config],
                env={**os.environ, **own, "HOME": str(root / "tmp"), "TMPDIR": str(root / "tmp")},
                cwd=root / "work",
                stderr=log,
                start_new_session=True,
            )
        wait_until(node.is_listening, 60, what="node listens")
        assert node.send(radiograph()) == [0x0000]
        [row] = node.run_until_idle(1, timeout=120)
        assert row["state"] == "analysed"
    finally:
        node.end()
        pacs.close()
    return (root / "trace").read_text().splitlines()


def strace(record: Path) -> list[str | Path]:
    """Return the command in front of a command that writes its system calls to `record`."""
    return [require("strace"), "-f", "-y", "--seccomp-bpf", "-s", "4096", "-e", f"trace={CALLS}", "-o", record]


def written(trace: list[str]) -> set[str]:
    """Return the paths that were opened for writing, made, renamed or removed."""
    found = set()
    for line in trace:
        if "/__pycache__" in line:  # Python goes on without: the image's own were made when it was built
            continue
        if opened := OPENED.search(line):
            found.add(opened["path"])
        elif CHANGED.search(line):
            found |= {str(Path(named["folder"] or "", named["name"])) for named in NAMED.finditer(line)}
    return found


def called(trace: list[str]) -> set[str]:
    """Return the addresses to which a connection was opened, or tried."""
    return {call["address"] for line in trace if (call := CALLED.search(line))}


def test_a_node_writes_to_its_data_folder_and_to_tmp_only(trace: list[str], root: Path) -> None:
    data = str(root / "var")
    paths = written(trace)
    assert any(path.startswith(data) for path in paths)
    assert {path for path in paths if not path.startswith((data, str(root / "tmp"), *DEVICES))} == set()


def test_a_node_calls_nobody_but_its_pacs(trace: list[str]) -> None:
    assert called(trace) == {"127.0.0.1"}


def test_no_library_leaves_a_device_identifier(trace: list[str]) -> None:
    assert [path for path in written(trace) if "deviceid" in path or "Microsoft" in path] == []


def test_a_file_written_or_a_call_made_elsewhere_would_be_seen(tmp_path: Path) -> None:
    record = tmp_path / "trace"
    code = """
import os, socket, sys
open(sys.argv[1], "w").close()
os.rename(sys.argv[1], sys.argv[2])
socket.socket().connect_ex(("127.0.0.2", 9))
"""
    files = [str(tmp_path / "planted"), str(tmp_path / "renamed")]
    subprocess.run([*strace(record), sys.executable, "-c", code, *files], check=True)
    lines = record.read_text().splitlines()
    assert set(files) <= written(lines)
    assert called(lines) == {"127.0.0.2"}
