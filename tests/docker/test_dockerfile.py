"""The image: not root, one process that gets the signals, no writing outside its data, and only pinned versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest
from packaging.utils import canonicalize_name

from scp_node.settings import Settings
from scp_node.settings_file import load_settings
from tests.docker.files import Dockerfile, build_context, is_pinned
from tests.supply_chain.locks import read_lock

TARGETS: Final = ["cpu", "gpu"]
WITHOUT_DECODER: Final = """
from pneumonia_model.decoding import DECODERS
from pydicom.pixels import get_decoder
print([syntax.name for syntax, plugin in DECODERS.items() if plugin not in get_decoder(syntax).available_plugins])
"""
FOLDER_OF_DATA: Final = "/var/lib/scp-node"


@pytest.fixture
def dockerfile(repository: Path) -> Dockerfile:
    return Dockerfile((repository / "docker" / "Dockerfile").read_text())


@pytest.fixture
def context(repository: Path, tmp_path: Path) -> Path:
    return build_context(repository, tmp_path / "context")


def test_the_default_target_needs_no_gpu(dockerfile: Dockerfile) -> None:
    assert list(dockerfile.stages)[-1] == "cpu"


@pytest.mark.parametrize("target", TARGETS)
def test_the_node_does_not_run_as_root(dockerfile: Dockerfile, target: str) -> None:
    # a number, not a name: Kubernetes' runAsNonRoot cannot look names up
    assert dockerfile.last(target, "USER").rest == "10001:10001"


@pytest.mark.parametrize("target", TARGETS)
def test_the_node_itself_gets_the_signal_to_stop(dockerfile: Dockerfile, target: str) -> None:
    assert dockerfile.last(target, "ENTRYPOINT").exec_form == ["scp-node"]
    assert dockerfile.last(target, "CMD").exec_form == ["serve"]
    assert dockerfile.last(target, "STOPSIGNAL").rest == "SIGTERM"


@pytest.mark.parametrize("target", TARGETS)
def test_health_is_an_answer_to_c_echo(dockerfile: Dockerfile, target: str) -> None:
    assert dockerfile.last(target, "HEALTHCHECK").exec_form == ["scp-node", "health"]


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_sets_only_settings_that_exist(
    dockerfile: Dockerfile, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in dockerfile.environment(target).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert str(settings.node.data_dir) == FOLDER_OF_DATA == dockerfile.last(target, "VOLUME").rest
    assert settings.log.format == "json"
    copied = [one.words for one in dockerfile.chain(target) if one.word == "COPY" and one.words[-1] != "/app"]
    assert [dockerfile.arguments["BUNDLE"], str(settings.inference.bundle)] in copied


def test_the_image_holds_the_bundle_and_version_of_this_release(dockerfile: Dockerfile, repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert dockerfile.arguments["VERSION"] == project["version"]
    assert repository / dockerfile.arguments["BUNDLE"] == Settings().inference.bundle


def test_base_images_have_a_version(dockerfile: Dockerfile) -> None:
    bases = {stage.base for stage in dockerfile.stages.values()} - set(dockerfile.stages)
    assert bases
    assert all(is_pinned(base) for base in bases)


def test_an_image_without_a_version_would_be_seen() -> None:
    assert [is_pinned(image) for image in ("python", "python:latest", "python:slim", "python:3.11-slim")] == [
        False,
        False,
        False,
        True,
    ]


def test_nothing_is_downloaded_but_by_pip(dockerfile: Dockerfile) -> None:
    instructions = [one for stage in dockerfile.stages.values() for one in stage.instructions]
    assert [one for one in instructions if one.word == "ADD"] == []
    assert [one for one in instructions if one.word == "RUN" and ("curl" in one.rest or "wget" in one.rest)] == []


def test_everything_that_is_copied_reaches_the_build(dockerfile: Dockerfile, context: Path) -> None:
    copies = [one for stage in dockerfile.stages.values() for one in stage.instructions if one.word == "COPY"]
    names = [name for one in copies if "--from" not in one.rest for name in one.words[:-1]]
    assert [name for name in names if not (context / name).exists()] == []


def test_no_secret_no_data_and_no_test_reaches_the_build(context: Path) -> None:
    assert {path.name for path in context.iterdir()} == {
        "LICENSE",
        "README.md",
        "docker",
        "model",
        "pyproject.toml",
        "requirements",
        "scp_node",
        "training",
    }


def test_the_install_step_gives_a_node_that_runs_without_torch(
    dockerfile: Dockerfile, context: Path, tmp_path: Path
) -> None:
    """Do what the stages `source` and `install-cpu` do, in clean folders; takes up to a minute."""
    source, app = tmp_path / "source", tmp_path / "app"
    for one in dockerfile.stages["source"].instructions:
        if one.word == "COPY":
            copy(context, one.words[:-1], source, one.words[-1])
    [step] = [one for one in dockerfile.stages["install-cpu"].instructions if one.word == "RUN"]
    [_shell, script, folder, *locks] = step.words
    assert folder == "/app"
    python = Path(sys.executable).resolve().parent
    options = f"{os.environ.get('PIP_ARGS', '')} --no-compile"  # most of what is installed is never imported here
    environment = {**os.environ, "PATH": f"{python}:{os.environ['PATH']}", "PIP_ARGS": options}
    subprocess.run(["sh", script, app, *locks], cwd=source, env=environment, check=True)
    assert "scp-node 0.1.0" in output(app / "bin" / "scp-node", "--version", cwd=tmp_path)
    assert output(app / "bin" / "python", "-c", WITHOUT_DECODER, cwd=tmp_path) == "[]\n"
    installed = output(app / "bin" / "python", "-m", "pip", "list", "--format=freeze", cwd=tmp_path)
    assert "torch" not in installed
    assert "psycopg==" in installed
    exact = {(each.name, each.version) for name in locks for each in read_lock(name) if each.is_for_here}
    found = {(canonicalize_name(name), version) for name, version in (line.split("==") for line in installed.split())}
    assert {(name, version) for name, version in found if name not in {"pip", "scp-node"}} == exact


def copy(context: Path, names: list[str], workdir: Path, to: str) -> None:
    """Do what COPY does: the content of a folder, or files into a folder."""
    for name in names:
        if (context / name).is_dir():
            shutil.copytree(context / name, workdir / to)
        else:
            (workdir / to).mkdir(parents=True, exist_ok=True)
            shutil.copy(context / name, workdir / to)


def output(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
