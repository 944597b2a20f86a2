"""The command line: every command says what it did, or in one line what is wrong."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest
import typer.main

from scp_node.cli.commands import cli
from scp_node.opening import open_ledger
from scp_node.settings import NodeSettings, Settings
from scp_node.settings_file import load_settings
from tests.command import Ended, run_here
from tests.node import BUNDLE
from tests.scp_node.ledger_node import Node, begin_ledger
from tests.servers import free_port

AUDIT: Final = """
import sys
from scp_node.cli.commands import main
sys.argv = ["scp-node", "audit"]
try:
    main()
except SystemExit as ended:
    print(ended.code, sorted({"alembic", "numpy", "pydicom", "pynetdicom"} & set(sys.modules)))
"""


def run(*arguments: str | Path, cwd: Path, **environment: str) -> Ended:
    return run_here(*arguments, cwd=cwd, environment=environment)


def serve(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a node that is expected to end at once: in a process of its own, for it could serve."""
    command = [sys.executable, "-m", "scp_node", "serve", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


def test_init_writes_a_file_that_can_be_read_and_does_not_overwrite_one(tmp_path: Path) -> None:
    assert run("init", cwd=tmp_path).returncode == 0
    assert load_settings(tmp_path / "scp_node.toml").listen.port == 11112
    again = run("init", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (2, "scp-node: scp_node.toml is there already; --force overwrites it\n")
    (tmp_path / "scp_node.toml").chmod(0o644)
    assert run("init", "--force", cwd=tmp_path).returncode == 0
    assert (tmp_path / "scp_node.toml").stat().st_mode & 0o777 == 0o600  # a password may be written into it


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serve", "--config", "absent.toml"], "absent.toml: cannot be read"),
        (["audit"], "ledger.sqlite3 is not there: `scp-node db upgrade` makes it"),
        (["audit", "--since", "yesterday"], "--since: give an ISO 8601 date or time"),
        (["audit", "--state", "done"], "--state: one of received"),
        (["requeue"], "requeue: give an ID, or --dead"),
        (["reanalyse"], "reanalyse: give a STUDY, --since or --model"),
        (["reanalyse", "--since", "yesterday"], "--since: give an ISO 8601 date or time"),
        (["report", "1.2.3"], "scp-node db upgrade"),
        (["send", "absent.dcm", "--to", "127.0.0.1:1"], "absent.dcm: no such file or folder"),
        (["send", ".", "--to", "nowhere"], "--to: give HOST:PORT"),
        (["model", "show", "--config", "elsewhere.toml"], "nowhere/manifest.json: cannot be read"),
    ],
)
def test_a_mistake_ends_with_one_line_and_status_2(tmp_path: Path, arguments: list[str], told: str) -> None:
    (tmp_path / "elsewhere.toml").write_text('[inference]\nbundle = "nowhere"\n')
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_the_model_s_verification_names_what_it_checked_and_what_failed(tmp_path: Path) -> None:
    (tmp_path / "scp_node.toml").write_text(f'[inference]\nbundle = "{BUNDLE}"\n')
    good = run("model", "verify", cwd=tmp_path)
    assert good.returncode == 0, good.stdout
    for name in ("manifest", "file weights.safetensors", "preprocessing", "golden logits, onnxruntime, 4 threads"):
        assert name in good.stdout
    assert good.stdout.endswith("all checks passed\n")

    (tmp_path / "scp_node.toml").write_text(f'[inference]\nbundle = "{BUNDLE}"\noperating_point = "best"\n')
    bad = run("model", "verify", cwd=tmp_path)
    assert bad.returncode == 1
    assert bad.stdout.endswith("FAILED: operating point\n")
    machine = run("model", "verify", "--json", cwd=tmp_path)
    assert machine.returncode == 1
    document = json.loads(machine.stdout)
    assert (document["passed"], document["failed"]) == (False, ["operating point"])


def test_the_verification_of_a_bundle_that_is_not_there_fails_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "scp_node.toml").write_text('[inference]\nbundle = "nowhere"\n')
    done = run("model", "verify", "--json", cwd=tmp_path)
    assert done.returncode == 1
    (failed,) = [check for check in json.loads(done.stdout)["checks"] if check["result"] == "failed"]
    assert failed["name"] == "manifest"
    assert "nowhere/manifest.json: cannot be read" in failed["found"]


def test_the_schema_is_made_by_its_command_and_then_the_audit_is_empty(tmp_path: Path) -> None:
    assert run("db", "upgrade", cwd=tmp_path).returncode == 0
    assert run("audit", "--format", "json", cwd=tmp_path).stdout == ""
    missing = run("report", "1.2.3", cwd=tmp_path)
    assert (missing.returncode, missing.stderr) == (2, "scp-node: no report of study 1.2.3\n")


@pytest.fixture
def berlin(tmp_path: Path) -> Path:
    """A folder with a ledger: three images, received at three times of a day and of the day after, in local time."""
    begin_ledger(load_settings_in(tmp_path))
    with closing(open_ledger(load_settings_in(tmp_path))) as ledger:
        images = Node(ledger.intake._transactions.engine)
        for name, at in (("1", "2026-11-29T22:59:59"), ("2", "2026-11-29T23:00:00.4"), ("3", "2026-11-30T22:59:59.9")):
            images.receive(name, received_at=datetime.fromisoformat(f"{at}+00:00"), patient_id=f"P{name}")
        images.receive("4", received_at=datetime.fromisoformat("2026-11-30T23:00:00+00:00"), accession="B1")
    return tmp_path


def load_settings_in(folder: Path) -> Settings:
    return Settings(node=NodeSettings(data_dir=folder / "var"))


def audited(folder: Path, *arguments: str) -> list[str]:
    """Return the last part of the SOP Instance UIDs that are printed where the clocks show Berlin's time."""
    done = run("audit", "--format", "json", *arguments, cwd=folder, TZ="Europe/Berlin")
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["sop_instance_uid"].rpartition(".")[2] for line in done.stdout.splitlines()]


def test_the_audit_is_in_local_time_and_takes_that_time_back(berlin: Path) -> None:
    table = run("audit", cwd=berlin, TZ="Europe/Berlin").stdout
    for shown in ("2026-11-29T23:59:59+01:00", "2026-11-30T00:00:00+01:00", "2026-11-30T23:59:59+01:00"):
        assert shown in table
    assert audited(berlin, "--since", "2026-11-30T00:00:00+01:00", "--until", "2026-11-30T00:00:00+01:00") == ["2"]
    assert audited(berlin, "--since", "2026-11-30 23:59:59+01:00") == ["3", "4"]
    document = json.loads(run("audit", "--format", "json", cwd=berlin, TZ="Europe/Berlin").stdout.splitlines()[1])
    assert document["received_at"] == "2026-11-29T23:00:00.400000+00:00"
    assert audited(berlin, "--since", document["received_at"], "--until", document["received_at"]) == ["2"]


def test_a_day_is_a_whole_day_of_local_time(berlin: Path) -> None:
    assert audited(berlin, "--since", "2026-11-30", "--until", "2026-11-30") == ["2", "3"]
    assert audited(berlin, "--until", "20261129") == ["1"]
    assert audited(berlin, "--until", "2026-11-30T00:00:00") == ["1", "2"]
    assert audited(berlin, "--since", "2026-12-01") == ["4"]


def test_the_audit_finds_by_patient_accession_and_uid(berlin: Path) -> None:
    assert audited(berlin, "--patient", "P?", "--accession", "A*") == ["1", "2", "3"]
    assert audited(berlin, "--patient", "P2") == ["2"]
    assert audited(berlin, "--accession", "*1", "--patient", "P1") == ["1", "4"]
    assert audited(berlin, "--instance", "1.2.3.3") == ["3"]


def test_a_study_is_analysed_again_by_its_own_uid_only(berlin: Path) -> None:
    assert run("reanalyse", "1.2.3", "--dry-run", cwd=berlin).returncode == 0
    done = run("reanalyse", "1.2.3.1", "--dry-run", cwd=berlin)
    assert (done.returncode, done.stderr) == (
        2,
        "scp-node: reanalyse: no image of study 1.2.3.1 was received\n",
    )


def test_work_that_was_not_given_up_is_known_and_not_put_back(berlin: Path) -> None:
    done = run("requeue", "1.2.3.1", cwd=berlin)
    assert (done.returncode, done.stdout) == (0, "0 put back: nothing of it was given up\n")


def test_a_command_waits_neither_for_the_dicom_library_nor_for_the_migrations(tmp_path: Path) -> None:
    run("db", "upgrade", cwd=tmp_path)
    done = subprocess.run([sys.executable, "-c", AUDIT], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_every_command_of_a_node_takes_a_settings_file() -> None:
    group = typer.main.get_group(cli)
    of_no_node = {"tls", "torture"}  # these make files, and attack another program
    assert of_no_node < group.commands.keys()
    for name, command in group.commands.items():
        if name in of_no_node:
            continue
        for part in getattr(command, "commands", {name: command}).values():
            assert "config" in [parameter.name for parameter in part.params], name


def test_a_node_that_is_not_there_is_not_healthy(tmp_path: Path) -> None:
    (tmp_path / "scp_node.toml").write_text("[listen]\nport = 1\n")
    assert run("health", cwd=tmp_path).returncode == 1


@pytest.mark.parametrize("role", ["all", "worker", "reporter", "sender"])
def test_a_demonstration_model_does_not_send_into_a_network_unless_that_is_acknowledged(
    tmp_path: Path, role: str
) -> None:
    (tmp_path / "scp_node.toml").write_text(
        f'[inference]\nbundle = "{BUNDLE}"\n[[destinations]]\nname = "pacs"\nae_title = "P"\nhost = "192.0.2.1"\n'
    )
    done = serve("--role", role, cwd=tmp_path)
    assert done.returncode == 2
    assert "inference.acknowledge_demonstration" in done.stderr
    assert "pacs" in done.stderr


@pytest.mark.parametrize("role", ["all", "listener", "sender"])
def test_a_schema_that_does_not_fit_ends_a_role_with_status_2_and_is_not_waited_for(tmp_path: Path, role: str) -> None:
    (tmp_path / "scp_node.toml").write_text(f'[listen]\nport = {free_port()}\n[inference]\nbundle = "{BUNDLE}"\n')
    assert run("db", "upgrade", cwd=tmp_path).returncode == 0
    with closing(sqlite3.connect(next(tmp_path.rglob("ledger.sqlite3")))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    done = serve("--role", role, cwd=tmp_path)
    assert done.returncode == 2
    assert "schema 9999 is newer than this program" in done.stderr


def test_one_flipped_byte_in_the_bundle_stops_the_start(tmp_path: Path) -> None:
    shutil.copytree(BUNDLE, tmp_path / BUNDLE.name)
    weights = tmp_path / BUNDLE.name / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    (tmp_path / "scp_node.toml").write_text(f'[inference]\nbundle = "{BUNDLE.name}"\n')
    done = serve(cwd=tmp_path)
    assert done.returncode == 2
    assert "weights.safetensors" in done.stderr
