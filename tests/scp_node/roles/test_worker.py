"""What the worker makes of a bundle on trial: it is opened, or refused with an alarm, and never in the way."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from pneumonia_model.bundle import load_bundle

from scp_node.inference.served_model import ServedModel
from scp_node.roles.common import Parts
from scp_node.roles.worker import _open_shadow, _shadow_watch
from scp_node.runtime.heartbeat import Progress
from scp_node.settings import InferenceSettings, Settings
from tests.model.bundles import second_bundle
from tests.node import BUNDLE
from tests.scp_node.ledger_node import MODEL, SHADOW


class Served:
    """Stands for an opened bundle: to open one takes its time."""

    backend, device = "none", "cpu"

    def __init__(self, digest: str) -> None:
        self.identity = replace(MODEL, digest=digest)


def settings_in(folder: Path, **inference: Any) -> Settings:
    return Settings.model_validate({"node": {"data_dir": folder}, "inference": {"bundle": BUNDLE, **inference}})


def opening(settings: Settings, model: Callable[[InferenceSettings], Any]) -> ServedModel | None:
    reporting = cast("ServedModel", Served(load_bundle(BUNDLE).digest))
    return _open_shadow(settings, reporting, Parts(open_model=model))


def test_a_bundle_on_trial_is_opened_with_the_settings_of_the_one_that_reports(tmp_path: Path) -> None:
    folder = second_bundle(tmp_path / "trial")
    settings = settings_in(tmp_path, shadow_bundle=folder, device="cpu", threads=3)
    asked: list[InferenceSettings] = []

    def opens(inference: InferenceSettings) -> Served:
        asked.append(inference)
        return Served(SHADOW.digest)

    model = opening(settings, opens)
    assert model is not None
    assert [(each.bundle, each.shadow_bundle, each.device, each.threads) for each in asked] == [
        (folder, None, "cpu", 3)
    ]


def fails(_settings: InferenceSettings) -> None:
    raise RuntimeError("CUDA error: out of memory")


def needless(_settings: InferenceSettings) -> None:
    raise AssertionError("it is refused before it is opened")


@pytest.mark.parametrize(
    ("is_same", "opens", "told"),
    [(True, needless, "is the bundle that reports"), (False, fails, "CUDA error: out of memory")],
    ids=["same", "fails"],
)
def test_one_that_is_refused_is_an_alarm_and_the_worker_goes_on(
    is_same: bool,
    opens: Callable[[InferenceSettings], Any],
    told: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = BUNDLE if is_same else second_bundle(tmp_path / "trial")
    settings = settings_in(tmp_path, shadow_bundle=folder)
    assert opening(settings, opens) is None
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "shadow bundle is refused, reporting goes on without it" in record.getMessage()
    assert told in record.getMessage()


class Killed(BaseException):
    """Ends a process as a crash does: nothing catches it."""


def test_one_that_ended_the_process_is_left_out_of_the_next_start_and_tried_at_the_one_after(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(tmp_path, shadow_bundle=second_bundle(tmp_path / "trial"))

    def crashes(_settings: InferenceSettings) -> None:
        raise Killed

    with monkeypatch.context() as crash:
        crash.setattr(Path, "unlink", lambda *_, **__: None)  # nothing is tidied up
        with pytest.raises(Killed):
            opening(settings, crashes)
    assert opening(settings, needless) is None
    assert "the process ended while it was opened" in caplog.text
    assert opening(settings, lambda _: Served(SHADOW.digest)) is not None
    assert opening(settings, lambda _: Served(SHADOW.digest)) is not None, "a start that went well leaves no mark"


def test_a_data_folder_that_may_only_be_read_does_not_keep_it_from_being_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(tmp_path, shadow_bundle=second_bundle(tmp_path / "trial"))

    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refused)
    assert opening(settings, lambda _: Served(SHADOW.digest)) is not None


def test_a_trial_that_hangs_is_said_once_and_again_only_after_it_went_on(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("shadow", 0.0)
    watch = _shadow_watch(progress)
    for _ in range(3):
        assert not watch()
    assert [record.getMessage().split(" place=")[0] for record in caplog.records] == [
        "shadow hangs, reporting goes on without it"
    ]
    progress.renew(60)
    watch()
    progress.renew(-1)
    watch()
    assert len(caplog.records) == 2
