"""The rules of the source tree that no single module can keep: what is shipped, who imports whom, what `make` does."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, Final
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pneumonia_model.bundle import load_bundle
from pneumonia_model.shipped import SHIPPED_BUNDLE

from scp_node.demo.phantom import phantom_image
from tests.command import run
from tests.conftest import Send
from tests.servers import free_port
from tests.waiting import wait_until

PACKAGES: Final = {  # import name -> folder
    "scp_node": "scp_node",
    "pneumonia_model": "model/pneumonia_model",
    "pneumonia_training": "training/pneumonia_training",
}
HEAVY: Final = {"torch", "torchvision", "onnxruntime", "highdicom", "cv2", "pandas", "matplotlib"}
BAD_IMPORTS: Final = {  # contract -> a file and the line that breaks it
    "The layers of the node": ("scp_node/domain.py", "import scp_node.settings"),
    "The model stands alone": ("model/pneumonia_model/planted.py", "import scp_node.domain"),
    "The node never needs training": ("scp_node/delivery/planted.py", "import pneumonia_training"),
    "Analysis and report are pure: no sockets, no SQL": ("scp_node/analysis/planted.py", "import sqlalchemy"),
    "The listener stays light": ("scp_node/listener/planted.py", "import torch"),
    "The steps do not know the listener": ("scp_node/loops/planted.py", "import scp_node.listener.contexts"),
    "Ledger and DICOM bytes need no network": ("scp_node/ledger/planted.py", "import pynetdicom.ae"),
    "The web page is light: no SQL, no pixels, no network as a client": ("scp_node/web/planted.py", "import cv2"),
}
PROMISED_TARGETS: Final = {"help", "setup", "run", "test", "check", "demo", "bench", "clean"}
# Where packages are taken from, and folders that exist on one developer's machine only. Names of hosts are spelt in two
# parts: this file is looked through as well.
PRIVATE: Final = re.compile(
    "|".join(
        ("py" + r"pi\.org", "python" + r"hosted\.org", "registry" + r"\.npmjs", r"deb\.deb" + "ian", "index[-]url")
    )
    + r"|(?<![\w.$/{}-])/(?:home|Users|root|work|mnt)/\w"
)


@pytest.fixture(scope="module")
def pyproject(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def source(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built and linted, to build in and to break."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, copy)
    for folder in PACKAGES.values():
        shutil.copytree(repository / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def wheel_file(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network."""
    output = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(output), cwd=source)
    [file] = output.iterdir()
    return file


@pytest.fixture(scope="module")
def wheel(wheel_file: Path) -> list[PurePosixPath]:
    """The files inside the wheel."""
    with ZipFile(wheel_file) as archive:
        return [PurePosixPath(name) for name in archive.namelist()]


def sources(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path.suffix in {".py", ".toml", ".mako", ".typed"})


# What is shipped


def test_the_wheel_has_our_three_packages_and_nothing_else(wheel: list[PurePosixPath]) -> None:
    top_level = {file.parts[0] for file in wheel}
    assert {name for name in top_level if not name.endswith(".dist-info")} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_has_every_source_file_of_the_package(package: str, wheel: list[PurePosixPath], source: Path) -> None:
    folder = source / PACKAGES[package]
    expected = {PurePosixPath(package, file.relative_to(folder).as_posix()) for file in sources(folder)}
    assert expected - set(wheel) == set()


def test_the_wheel_says_that_it_is_typed_and_has_the_licence(wheel: list[PurePosixPath]) -> None:
    assert {PurePosixPath(package, "py.typed") for package in PACKAGES} <= set(wheel)
    assert any(file.name == "LICENSE" for file in wheel)


def test_the_wheel_has_the_shipped_bundle_byte_for_byte(wheel_file: Path) -> None:
    folder = PurePosixPath("pneumonia_model", "shipped_bundle")
    with ZipFile(wheel_file) as archive:
        packed = {
            PurePosixPath(name).name: archive.read(name)
            for name in archive.namelist()
            if PurePosixPath(name).parent == folder
        }
    assert packed == {file.name: file.read_bytes() for file in SHIPPED_BUNDLE.iterdir()}
    assert "weights.safetensors" in packed


@pytest.fixture(scope="module")
def unpacked(wheel_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an installation puts into site-packages."""
    folder = tmp_path_factory.mktemp("site-packages")
    with ZipFile(wheel_file) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.needs("storescu")
def test_what_the_wheel_installs_serves_from_any_folder(unpacked: Path, tmp_path: Path, storescu: Send) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(unpacked),
        "SCP_NODE_NODE__DATA_DIR": str(tmp_path / "data"),
        "SCP_NODE_LISTEN__PORT": str(port),
        "SCP_NODE_LISTEN__LOW_WATER_MIB": "0",
        "SCP_NODE_STUDY__QUIET_SECONDS": "0",
        "SCP_NODE_ANALYSIS__PIXEL_GATE": "off",  # the film is a phantom
    }
    command = (sys.executable, "-m", "scp_node")
    film = tmp_path / "film.dcm"
    image = phantom_image(1, opacity=True)
    image.save_as(film, enforce_file_format=True)
    with (tmp_path / "log").open("wb") as log:
        node = subprocess.Popen([*command, "serve"], cwd="/", env=environment, stderr=log)
    try:
        wait_until(lambda: "listening" in (tmp_path / "log").read_text(), 60, what="the node listens")
        assert storescu(film, port=port).returncode == 0
        report = (*command, "report", image.StudyInstanceUID)
        wait_until(lambda: subprocess.run(report, cwd="/", env=environment, check=False).returncode == 0, 60)
        audit = (*command, "audit", "--format", "json")
        row = subprocess.run(audit, cwd="/", env=environment, check=True, capture_output=True).stdout
    finally:
        node.terminate()
        node.wait(40)
    audited = json.loads(row)
    assert (audited["state"], audited["bundle_digest"]) == ("analysed", load_bundle(SHIPPED_BUNDLE).digest)
    where = "from scp_node import settings; print(settings.__file__, settings.SHIPPED_BUNDLE)"
    found = run(sys.executable, "-c", where, cwd=Path("/"), PYTHONPATH=str(unpacked)).split()
    assert found == [f"{unpacked}/scp_node/settings.py", f"{unpacked}/pneumonia_model/shipped_bundle"]


# Who imports whom


def loaded_with(statement: str, modules: set[str], repository: Path) -> set[str]:
    """Return which of the modules a fresh interpreter has loaded after the statement."""
    code = f"import sys\n{statement}\nprint(' '.join(m for m in sys.modules if '.' not in m))"
    return modules & set(run(sys.executable, "-c", code, cwd=repository).split())


@pytest.mark.parametrize("module", ["scp_node", "scp_node.cli.commands", "scp_node.listener", "scp_node.ledger"])
def test_importing_it_loads_no_network_and_no_report_library(module: str, repository: Path) -> None:
    assert loaded_with(f"import {module}", HEAVY, repository) == set()


def test_the_ledger_loads_no_network(repository: Path) -> None:
    assert loaded_with("import scp_node.ledger", {"pynetdicom"}, repository) == set()


def test_a_loaded_network_would_be_seen(repository: Path) -> None:
    assert loaded_with("import scp_node.listener", {"pynetdicom"}, repository) == {"pynetdicom"}


def test_a_heavy_import_would_be_seen(repository: Path) -> None:
    assert "highdicom" in loaded_with("import scp_node, highdicom", HEAVY, repository)


def lint_imports(source: Path, *, expect: int) -> str:
    return run(
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
        "--no-cache",
        cwd=source,
        expect=expect,
        PYTHONPATH=os.pathsep.join(map(str, (source, source / "model", source / "training"))),
        COLUMNS="200",
    )


def test_the_import_contracts_hold(source: Path) -> None:
    assert "0 broken" in lint_imports(source, expect=0)


@pytest.mark.parametrize("contract", BAD_IMPORTS)
def test_a_planted_bad_import_breaks_its_contract(contract: str, source: Path) -> None:
    name, line = BAD_IMPORTS[contract]
    file = source / name
    before = file.read_bytes() if file.exists() else None
    with file.open("a") as text:
        text.write(f"\n{line}\n")
    try:
        assert f"{contract} BROKEN" in lint_imports(source, expect=1)
    finally:
        file.unlink() if before is None else file.write_bytes(before)


def test_a_module_without_a_place_in_the_layers_is_seen(source: Path) -> None:
    planted = source / "scp_node" / "planted.py"
    planted.touch()
    try:
        assert "scp_node.planted" in lint_imports(source, expect=1)
    finally:
        planted.unlink()


def test_every_import_contract_has_a_planted_bad_import(pyproject: dict[str, Any]) -> None:
    contracts = {contract["name"] for contract in pyproject["tool"]["importlinter"]["contracts"]}
    assert contracts == set(BAD_IMPORTS)


# What the gate lets pass


def ignores_without_reason(pyproject_text: str) -> list[str]:
    """Return the lines of ruff's `ignore` lists that name a rule and give no reason."""
    tables = re.split(r"^\[", pyproject_text, flags=re.MULTILINE)
    lines = [
        line.strip()
        for table in tables
        if table.startswith("tool.ruff")
        for block in re.findall(r"^(?:ignore|\".*\") = \[\n(.*?)^\]", table, flags=re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    assert lines, "no list of ignored rules was found"
    return [line for line in lines if not re.fullmatch(r'(?:"[A-Z]+\d*", ?)+\s*#\s*\w.{9,}', line)]


def test_every_ignored_rule_has_its_reason(repository: Path) -> None:
    assert ignores_without_reason((repository / "pyproject.toml").read_text()) == []


def test_an_ignored_rule_without_a_reason_would_be_seen() -> None:
    planted = '[tool.ruff.lint]\nignore = [\n    "D401",  # noun phrases in places\n    "S101",\n]\n'
    assert ignores_without_reason(planted) == ['"S101",']


def test_the_gate_covers_every_python_file(pyproject: dict[str, Any], tracked: list[Path], repository: Path) -> None:
    roots = [repository / folder for folder in pyproject["tool"]["mypy"]["files"]]
    outside = [file for file in tracked if file.suffix == ".py" and not any(file.is_relative_to(r) for r in roots)]
    assert outside == []
    assert "exclude" not in pyproject["tool"]["ruff"]
    assert "exclude" not in pyproject["tool"]["mypy"]


LAYOUT: Final = re.compile("# fmt: " + "(?:skip|off)")


def test_the_formatter_alone_decides_the_layout(tracked: list[Path]) -> None:
    assert [file for file in tracked if file.suffix == ".py" and LAYOUT.search(file.read_text())] == []


def unmarked_constants(source: str) -> list[str]:
    """Return the names of a module's constants that are not marked Final."""
    names = []
    for node in ast.parse(source).body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = [leaf for target in node.targets for leaf in getattr(target, "elts", [target])]
        elif isinstance(node, ast.AnnAssign) and not ast.unparse(node.annotation).startswith("Final"):
            targets = [node.target]
        names += [
            leaf.id for leaf in targets if isinstance(leaf, ast.Name) and re.fullmatch("_?[A-Z][A-Z0-9_]+", leaf.id)
        ]
    return names


def test_every_constant_is_final(tracked: list[Path]) -> None:
    files = [file for file in tracked if file.suffix == ".py"]
    assert {str(file): names for file in files if (names := unmarked_constants(file.read_text()))} == {}


@pytest.mark.parametrize("line", ["LIMIT = 3", "LIMIT: int = 3", "LIMIT, OTHER = 3, 4"])
def test_an_unmarked_constant_would_be_seen(line: str) -> None:
    assert "LIMIT" in unmarked_constants(line)


def compared_queues(source: str) -> list[str]:
    """Return the places where the name of a queue is compared, in a program or in SQL."""
    found = []
    for node in ast.walk(ast.parse(source)):
        sides: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in QUEUE_TESTS:
            sides = [node.func.value]
        found += [
            ast.unparse(node) for side in sides if ast.unparse(side).rpartition(".")[2] in {"queue", "queue_name"}
        ]
    return found


QUEUE_TESTS: Final = {"startswith", "endswith", "removeprefix", "partition", "in_", "like"}
QUEUE_KINDS: Final = "scp_node/ledger/queue_kinds.py"


def test_one_module_knows_the_names_of_queues(repository: Path) -> None:
    files = {str(file.relative_to(repository)): file.read_text() for file in (repository / "scp_node").rglob("*.py")}
    assert {name for name, text in files.items() if compared_queues(text)} == {QUEUE_KINDS}


@pytest.mark.parametrize("line", ['row.queue == "report"', 'work.c.queue.startswith("deliver:")', "queue in NAMES"])
def test_a_compared_queue_would_be_seen(line: str) -> None:
    assert len(compared_queues(line)) == 1


BROAD_EXCEPTS: Final = {  # file of the node -> how often it catches everything, and why
    "dicom/foreign.py": (1, "a library raises anything over the bytes of a peer"),
    "listener/faults.py": (1, "a bug in one request or callback leaves all others alone"),
    "runtime/polling.py": (1, "the step runner: a step that raises is tried again"),
    "loops/analyse.py": (2, "a network or decoder that raises is not the end of the worker"),
    "loops/register.py": (2, "one arrival that cannot be entered does not hold up the next"),
    "loops/report.py": (2, "a report or its pictures that cannot be made do not hold up the next"),
    "loops/report_builder.py": (1, "a report does not wait for a picture that cannot be made"),
}
MOST_BROAD_EXCEPTS: Final = 11


def broad_excepts(source: str) -> int:
    """Return how often everything is caught: in a handler without a type, by name, in a tuple, or by `suppress`."""
    caught: list[ast.expr] = []
    count = 0
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            count += node.type is None
            caught += getattr(node.type, "elts", [node.type] if node.type else [])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            caught += node.args
    return count + sum(ast.unparse(one).rpartition(".")[2] in {"Exception", "BaseException"} for one in caught)


def test_everything_is_caught_in_few_places_each_with_its_reason(repository: Path) -> None:
    node = repository / "scp_node"
    counted = {file.relative_to(node).as_posix(): broad_excepts(file.read_text()) for file in node.rglob("*.py")}
    assert {file: count for file, count in counted.items() if count} == {
        file: count for file, (count, _) in BROAD_EXCEPTS.items()
    }
    assert sum(counted.values()) <= MOST_BROAD_EXCEPTS


@pytest.mark.parametrize(
    "handler",
    [
        "except:",
        "except Exception:",
        "except BaseException as error:",
        "except (OSError, Exception):",
        "except builtins.Exception:",
    ],
)
def test_a_broad_except_would_be_counted(handler: str) -> None:
    assert broad_excepts(f"try:\n    step()\n{handler}\n    pass") == 1
    assert broad_excepts(f"try:\n    step()\n{handler}\n    raise") == 1


def test_a_broad_suppression_would_be_counted_and_a_narrow_except_is_not() -> None:
    assert broad_excepts("with contextlib.suppress(Exception):\n    step()") == 1
    assert broad_excepts("with suppress(OSError):\n    step()") == 0
    assert broad_excepts("try:\n    step()\nexcept (OSError, http.client.HTTPException):\n    pass") == 0


TYPED: Final = (  # what passes between these is checked by mypy, value by value
    "scp_node/loops",
    "scp_node/report/objects",
    "scp_node/report/version.py",
    "scp_node/ledger/audit.py",
    "scp_node/ledger/audit_rows.py",
    "scp_node/cli",
)


def untyped_dictionaries(source: str) -> list[str]:
    """Return the annotations that say nothing of a dictionary's values."""
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Subscript))
    return [text for node in nodes if re.fullmatch(r"(?:dict|Mapping)\[str, Any\]", text := ast.unparse(node))]


def test_builders_and_audit_pass_no_untyped_dictionaries(repository: Path) -> None:
    places = [repository / name for name in TYPED]
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*.py"))]
    assert len(files) > 20
    assert {str(file): found for file in files if (found := untyped_dictionaries(file.read_text()))} == {}


def test_an_untyped_dictionary_would_be_seen() -> None:
    assert untyped_dictionaries("def rows() -> Iterator[dict[str, Any]]: ...") == ["dict[str, Any]"]


# What is installed


EXTRAS_OF: Final = {  # folder -> the extras that may be installed where its code runs
    "scp_node": {"oidc", "parquet", "postgres"},
    "model/pneumonia_model": {"gpu"},
    "training/pneumonia_training": {"training"},
    "tests": {"dev", "oidc", "parquet", "postgres", "training"},
}


@pytest.mark.parametrize("folder", EXTRAS_OF)
def test_every_imported_package_is_a_declared_dependency(
    folder: str, pyproject: dict[str, Any], repository: Path
) -> None:
    project = pyproject["project"]
    declared = [
        *project["dependencies"],
        *chain(*(project["optional-dependencies"][name] for name in EXTRAS_OF[folder])),
    ]
    distributions = packages_distributions()
    names = {canonicalize_name(Requirement(one).name) for one in declared}
    imported = set(chain.from_iterable(map(imports, (repository / folder).rglob("*.py"))))
    foreign = imported - sys.stdlib_module_names - set(PACKAGES) - {"tests"}
    assert {name for name in foreign if not names & set(map(canonicalize_name, distributions[name]))} == set()


def imports(file: Path) -> Iterator[str]:
    """Yield the top-level name of every import, the late ones inside functions too."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


# What `make` and the repository promise


def test_make_has_the_promised_targets_and_explains_each(repository: Path) -> None:
    listed = re.findall(r"^ +make ([a-z-]+) +\S", run("make", cwd=repository), flags=re.MULTILINE)
    declared = re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(PROMISED_TARGETS) <= set(listed)
    assert set(declared) == set(listed)


@pytest.mark.parametrize("target", sorted(PROMISED_TARGETS))
def test_make_knows_what_to_do_for(target: str, repository: Path) -> None:
    run("make", "--dry-run", target, cwd=repository)


def test_starting_the_node_installs_no_torch(repository: Path) -> None:
    everything = run("make", "--dry-run", "--always-make", "run", cwd=repository)
    assert "scp-node serve" in everything
    assert "training" not in everything


def test_make_test_runs_the_whole_gate(repository: Path) -> None:
    everything = run("make", "--dry-run", "test", cwd=repository)
    gate = ["ruff check\n", "ruff format --check\n", "mypy\n", "lint-imports\n"]
    tests = ["pytest --ignore tests/chaos ", "pytest tests/chaos "]
    places = [everything.find(f"bin/{step}") for step in gate + tests]
    assert -1 not in places
    assert places == sorted(places)
    spread = r"--(?:numprocesses|dist) \w+|--no-loadscope-reorder"
    runs = [re.sub(spread, "", options).split() for options in re.findall(r"bin/pytest (.*)", everything)]
    assert runs == [["--ignore", "tests/chaos"], ["tests/chaos"]], "no test is left out"


def test_ci_runs_make_test_and_nothing_else(repository: Path) -> None:
    lines = (repository / ".ci" / "run").read_text().splitlines()
    assert lines == ["#!/bin/sh", "set -eu", 'cd "$(dirname "$0")/.."', "make test"]


@pytest.fixture(scope="module")
def tracked(repository: Path) -> list[Path]:
    """The files that git knows."""
    if not (repository / ".git").exists():
        pytest.skip("this is not a git work tree")
    names = run("git", "ls-files", "-z", cwd=repository).split("\0")
    return [repository / name for name in names if name and (repository / name).is_file()]


def private_names(file: Path) -> list[str]:
    content = file.read_bytes()
    return [] if b"\0" in content else PRIVATE.findall(content.decode(errors="replace"))


def test_no_file_names_a_registry_or_a_folder_of_one_machine(tracked: list[Path]) -> None:
    found = {str(file): names for file in tracked if (names := private_names(file))}
    assert found == {}


@pytest.mark.parametrize("text", ["/ho" + "me/alex/node", 'DATA = "/wo' + 'rk/data"', "https://pypi" + ".org/simple"])
def test_a_private_name_would_be_seen(text: str, tmp_path: Path) -> None:
    file = tmp_path / "planted.txt"
    file.write_text(text)
    assert private_names(file) != []
