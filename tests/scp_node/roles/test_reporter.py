"""What makes reports: a process without a model, beside others of its kind."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from pneumonia_model.bundle import load_bundle

from scp_node.app import Role, _processes
from scp_node.opening import open_ledger
from scp_node.roles.common import PARTS
from scp_node.roles.presence import deciding
from scp_node.roles.reporter import run_reporter
from scp_node.runtime.heartbeat import Heartbeat
from scp_node.settings import Settings
from tests.node import BUNDLE
from tests.scp_node.ledger_node import begin_ledger

RUNS_AND_LISTS: Final = """
import sys, threading
from pathlib import Path
from scp_node.app import LIBRARIES_LEFT_OUT, Role
from scp_node.dicom.libraries import leave_out_libraries
leave_out_libraries(*LIBRARIES_LEFT_OUT[Role.REPORTER])
from scp_node.roles.common import PARTS
from scp_node.roles.reporter import run_reporter
from scp_node.runtime.heartbeat import Heartbeat
from scp_node.settings_file import load_settings
stop = threading.Event()
status = run_reporter(load_settings(Path({config!r})), stop, Heartbeat(at_work=stop.set), PARTS)
print(status, *(name for name, module in sys.modules.items() if module is not None))
"""


def settings_in(folder: Path) -> Settings:
    settings = Settings.model_validate({"node": {"data_dir": folder / "var"}, "inference": {"bundle": BUNDLE}})
    begin_ledger(settings)
    return settings


def run_until_it_works(settings: Settings, *, allow_different: bool = False) -> int:
    stop = threading.Event()
    return run_reporter(settings, stop, Heartbeat(at_work=stop.set), PARTS, allow_different=allow_different)


def test_a_reporter_loads_nothing_that_runs_a_network(tmp_path: Path) -> None:
    config = tmp_path / "scp_node.toml"
    config.write_text(f'[node]\ndata_dir = "{tmp_path}/var"\n[inference]\nbundle = "{BUNDLE}"\n')
    code = RUNS_AND_LISTS.format(config=str(config))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, *loaded = done.stdout.split()
    assert status == "0"
    assert "pydicom" in loaded
    assert set(loaded).isdisjoint({"onnxruntime", "torch", "openvino", "PIL", "gdcm"})


def test_a_reporter_knows_the_model_by_the_digest_that_the_worker_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_in(tmp_path)
    with closing(open_ledger(settings)) as ledger:
        ledger.processes.enter("host:1:worker:aa", deciding(settings, load_bundle(BUNDLE).digest))
        assert run_until_it_works(settings, allow_different=True) == 0
        assert "settings differ" not in caplog.text
        ledger.processes.enter("host:2:worker:bb", deciding(settings, "sha256:other"))
        assert run_until_it_works(settings, allow_different=True) == 0
    assert "settings differ" in caplog.text
    assert "model" in caplog.text.partition("settings differ")[2].partition("\n")[0]


@pytest.mark.parametrize(
    ("number", "names"), [(1, ["reporter"]), (3, ["reporter-1", "reporter-2", "reporter-3"])], ids=["one", "three"]
)
def test_as_many_reporters_are_started_as_the_settings_say(number: int, names: list[str]) -> None:
    settings = Settings.model_validate({"report": {"processes": number}})
    assert _processes(Role.REPORTER, settings) == names
    assert _processes(Role.WORKER, settings) == ["worker"]


def test_hosts_may_run_reporters_in_different_numbers() -> None:
    few, many = (Settings.model_validate({"report": {"processes": number}}) for number in (1, 3))
    assert deciding(few) == deciding(many)
