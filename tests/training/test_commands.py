"""From a folder of films to a bundle that the node loads, by the four commands that the README names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from pneumonia_model.bundle import load_bundle
from pneumonia_model.golden import verify_golden
from pneumonia_model.opening import open_backend
from pneumonia_training import cli, intervals
from pneumonia_training.learning.checkpoint import network_weights
from typer.testing import CliRunner

from tests.node import BUNDLE
from tests.training.small_films import write_manifest

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
CPU: Final = ("--accelerator", "cpu", "--devices", "1")
SHORT: Final = tuple(
    part
    for value in ("epochs=3", "side=64", "batch_size=8", "averaging=0.7", "learning_rate=2e-3")
    for part in ("--set", f"stage.films.{value}")
)


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return what `pneumonia-train` says on standard error when it ends with exit code 1."""

    def said(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["pneumonia-train", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1
        return capsys.readouterr().err.strip().splitlines()[-1]

    return said


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    run("prepare", folder / "cache", "--manifest", write_manifest(folder, patients=80, films_each=1), "--jobs", "1")
    return folder / "cache"


@pytest.fixture(scope="module")
def checkpoint(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `fit` prints that it leaves."""
    return Path(run("fit", cache, tmp_path_factory.mktemp("run"), *SHORT, *CPU).splitlines()[-1])


def test_four_commands_lead_from_films_to_a_bundle_and_its_report(
    cache: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "REPLICATES", 50)
    exported = run("export", checkpoint, cache, *SHORT, "--version", "9.9.9", "--bundles", tmp_path / "bundles")
    bundle = load_bundle(tmp_path / "bundles" / "pneumonia-resnet18-9.9.9")
    assert exported.splitlines()[-1].endswith(bundle.digest)
    verify_golden(bundle, open_backend(bundle, "onnxruntime", "cpu"))
    recorded = json.loads((checkpoint.parent.parent / "run.json").read_text())["environment"]["commit"]
    assert bundle.manifest["training"]["recorded"]
    assert bundle.manifest["training"]["commit"] == recorded
    run("evaluate", bundle.path, cache, *SHORT, "--recipe", "default", "--out", tmp_path / "out")
    measured = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert measured["warnings"] == []
    assert measured["test"]["auc"]["model"]["all"] == bundle.manifest["auc"]
    assert (tmp_path / "out" / "report.html").stat().st_size > 50_000
    compared = json.loads(run("evaluate", bundle.path, cache, "--compare", BUNDLE))
    assert compared["second"]["version"] == "9.9.9"
    assert len(compared["warnings"]) == 2


def test_a_smoke_trial_runs_by_its_flag(cache: Path, tmp_path: Path) -> None:
    checkpoint = Path(run("fit", cache, tmp_path, "--smoke", "--set", "stage.films.side=32", *CPU).splitlines()[-1])
    assert checkpoint.is_file()
    assert json.loads((tmp_path / "run.json").read_text())["recipe"]["name"] == "default (smoke)"


def test_two_processes_train_together(cache: Path, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("pneumonia-train")
    options = ("--smoke", "--set", "stage.films.side=32", "--accelerator", "cpu", "--devices", "2")
    done = subprocess.run(
        [command, "fit", cache, tmp_path, *options], check=True, capture_output=True, text=True, timeout=300
    )
    (checkpoint,) = done.stdout.split()
    assert network_weights(Path(checkpoint))
    assert "MEMBER: 2/2" in done.stderr


def test_a_checkpoint_of_another_split_is_not_measured_on_its_training_films(
    cache: Path, checkpoint: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    other = ("--set", "split.test_folds=[4]", "--bundles", tmp_path)
    assert "trained by another split" in refused("export", checkpoint, cache, *other)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("fit", "CACHE", "no-run", "--recipe", "nothing"), "no recipe nothing"),
        (("fit", "CACHE", "no-run", "--set", "stage.films.epoch=2"), "no setting epoch"),
        (("export", "gone.ckpt", "CACHE"), "cannot be read"),
        (("evaluate", "gone", "CACHE"), "gone"),
        (("compare", "CACHE", "a=p.csv", "--subset", "x", "--against", "b"), "nothing named b"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    cache: Path, refused: Callable[..., str], arguments: tuple[str, ...], reason: str
) -> None:
    assert reason in refused(*(str(cache) if part == "CACHE" else part for part in arguments))
