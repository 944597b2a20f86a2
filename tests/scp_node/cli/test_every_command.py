"""Whatever is missing, damaged or makes no sense: a command ends with a status and one line, never in a traceback."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
import typer.main

from scp_node.cli.commands import cli, main
from scp_node.settings import NodeSettings, Settings
from scp_node.settings_file import load_settings
from tests.scp_node.delivery.test_send_files import write_file
from tests.scp_node.ledger_node import begin_ledger
from tests.tools import require

COMMANDS: Final[Mapping[str, list[list[str]]]] = {  # each with arguments that make sense
    "serve": [["--role", "listener"]],
    "init": [[]],
    "doctor": [[], ["--json"]],
    "health": [[]],
    "audit": [[], ["--accession", "A*", "--patient", "?", "--since", "2026-11-30", "--format", "csv"]],
    "audit verify": [[]],
    "report": [["1.2.3"]],
    "send": [["film.dcm", "--to", "127.0.0.1:1"]],
    "send-test": [["pacs"], ["pacs", "--json"]],
    "requeue": [["1.2.3"], ["--dead"], ["1.2.3", "--discard"]],
    "resolve": [["1.2.3"], ["1.2.3", "--use", "1"]],
    "feedback": [["1.2.3"], ["1.2.3", "--opinion", "agree"], ["--import", "film.dcm"], ["--export"]],
    "reanalyse": [["1.2.3"], ["--since", "2026-11-30"], ["--model", "absent-1.0"]],
    "model show": [[]],
    "model verify": [[]],
    "model promote": [[], ["--yes", "--by", "Ana"]],
    "db upgrade": [[]],
    "db rebuild": [[]],
    "db copy": [["postgresql+psycopg://user:secret@127.0.0.1:1/x"]],
    "db backup": [["copy.sqlite3"]],
    "user add": [["ada", "--role", "admin"]],
    "user role": [["ada", "reader"]],
    "user reset": [["ada"]],
    "user disable": [["ada"]],
    "user enable": [["ada"]],
    "user list": [[]],
    "user link": [["ada"]],
    "token add": [["ada", "a script", "--days", "30"]],
    "token list": [[]],
    "token revoke": [["1"]],
    "tls init": [["certificates", "--name", "node.example", "--peer", "ct=10.1.2.3"]],
    "torture": [["127.0.0.1:1"]],
}
NONSENSE: Final = [  # with what the line says
    ("init nowhere/x.toml", "nowhere/x.toml: No such file or directory"),
    ("init folder", "folder is a folder"),
    ("init folder --force", "folder is a folder"),
    ("init film.dcm/x", "film.dcm/x"),
    ("audit --since yesterday", "--since: give an ISO 8601 date or time"),
    ("audit --since 2026-02-30", "--since: give an ISO 8601 date or time"),
    ("audit --since 0001-01-01T00:00+14:00", "--since: give an ISO 8601 date or time"),
    ("audit --until 9999-12-31", "--until: give an ISO 8601 date or time"),
    ("audit --state done", "--state: one of received"),
    ("audit --accession=", "an argument is empty after --accession"),
    ("audit verify --head x", "--head: give the 64 hexadecimal digits"),
    ("report 1.2.404", "no report of study 1.2.404"),
    ("report not-a-uid", "no report of study not-a-uid"),
    ("report 1.2.3 --version 0", "--version"),
    ("report 1.2.3 --version 99999999999999999999", "--version"),
    ("send nowhere", "nowhere: no such file or folder"),
    ("send folder", "folder: no file is in this folder"),
    ("send film.dcm/x", "film.dcm/x: no such file or folder"),
    ("send fifo", "fifo: neither a file nor a folder"),
    ("send film.dcm --to nowhere", "--to: give HOST:PORT"),
    ("send film.dcm --to host:0", "--to: give HOST:PORT"),
    ("send film.dcm --to host:99999", "--to: give HOST:PORT"),
    ("send film.dcm --to host:" + "9" * 5000, "--to: give HOST:PORT"),
    ("send film.dcm --key x", "--peer-certificate need --tls"),
    ("send film.dcm --tls --key x", "certificate and key belong together"),
    ("send film.dcm --tls --ca-file nowhere", "send.ca_file: nowhere: No such file or directory"),
    ("tls init film.dcm", "tls init: film.dcm"),
    ("tls init folder --peer ../x", "../x: give letters, digits"),
    ("tls init folder --peer ca", "ca: give letters, digits"),
    ("tls init folder --peer node=10.0.0.1", "node: is the node's name, or given twice"),
    ("tls init folder --peer a=10.0.0.1 --peer a=10.0.0.2", "a: is the node's name, or given twice"),
    ("tls init folder --peer ct1=10.0.0.300", "'10.0.0.300' is no DNS name"),
    ("send film.dcm --called A-TITLE-THAT-IS-TOO-LONG", "--called: an AE title has 1 to 16"),
    ("send film.dcm --calling back\\slash", "--calling: an AE title has 1 to 16"),
    ("feedback", "feedback: give a STUDY, --import FILE or --export"),
    ("feedback 1.2.3 --export", "feedback: give a STUDY, --import FILE or --export"),
    ("feedback 1.2.404 --opinion agree", "no image of study 1.2.404"),
    ("feedback 1.2.404", "no image of study 1.2.404"),
    ("feedback 1.2.3 --opinion maybe", "--opinion"),
    ("feedback 1.2.3 --reader x", "--reader and --comment go with a STUDY and --opinion"),
    ("feedback 1.2.3 --dry-run", "--dry-run goes with --import"),
    ("feedback --import nowhere.csv", "nowhere.csv: No such file or directory"),
    ("feedback --import folder", "folder: Is a directory"),
    ("feedback --import film.dcm", "line 1: the text is not UTF-8"),
    ("send-test nowhere", "send-test: nowhere is no name of an entry of [[destinations]]; there are: none"),
    ("requeue", "requeue: give an ID, or --dead"),
    ("resolve 1.2.404", "no image has the SOP Instance UID 1.2.404"),
    ("resolve not-a-uid --use 1", "no image has the SOP Instance UID not-a-uid"),
    ("requeue 1.2.404", "1.2.404 is not known"),
    ("requeue 404", "404 is not known"),
    ("requeue 1.2.404 --discard", "1.2.404 is not known"),
    ("reanalyse", "reanalyse: give a STUDY, --since or --model"),
    ("reanalyse 1.2.404", "no image of study 1.2.404"),
    ("reanalyse --model absent-1.0", "no result is by absent-1.0"),
    ("reanalyse --since tomorrow", "--since: give an ISO 8601 date or time"),
    ("model promote --yes --by=" + "x" * 129, "--by: give a name of at most 128"),
    ("db copy nonsense", "database.url: Could not parse"),
    ("db copy postgresql+psycopg://user:secret@host:port/x", "database.url: the port is not a number"),
    ("db copy postgresql+psycopg://user:secret@127.0.0.1:1/x", "database: (psycopg.OperationalError)"),
    ("db copy mysql://user:secret@127.0.0.1/x", "mysql is not supported"),
    ("db copy sqlite:///film.dcm/x", "film.dcm is not a folder"),
    ("db backup nowhere/copy", "nowhere/copy not written"),
    ("db backup film.dcm", "film.dcm is there already"),
    ("db backup folder", "folder"),
    ("user add a/b", "a name has 1 to 64 printable characters"),
    ("user role nobody reader", "nobody has this name"),
    ("user link nobody", "nobody has this name"),
    ("token add nobody script", "nobody has this name"),
    ("token revoke 404", "there is no token 404"),
    ("torture nowhere --i-own-this", "HOST:PORT: give HOST:PORT"),
    ("torture 127.0.0.1:1", "say --i-own-this if it is yours and nobody depends on it"),
    ("torture 127.0.0.1:1 --i-own-this", "a C-ECHO is not answered: no connection: Connection refused"),
    ("torture 192.0.2.1:104 --i-own-this", "192.0.2.1:104 is another machine: say --beyond-loopback"),
    ("torture no.invalid:104 --i-own-this", "HOST:PORT: no.invalid has no address"),
    ("torture 127.0.0.1:1 --i-own-this --only flood", "--only: flood is no attack; there are: random-bytes, silent"),
    ("torture 127.0.0.1:1 --i-own-this --calling A-TITLE-THAT-IS-TOO-LONG", "--calling: an AE title has 1 to 16"),
    ("torture 127.0.0.1:1 --i-own-this --seconds 0", "--seconds"),
    (
        "torture 127.0.0.1:1 --i-own-this --key x",
        "torture: --ca-file, --certificate, --key and --peer-certificate need",
    ),
]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one film, an empty folder and a named pipe, and no bundle, which would take its time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCP_NODE_INFERENCE__BUNDLE", str(tmp_path / "no bundle"))
    monkeypatch.setenv("SCP_NODE_LISTEN__PORT", "1")
    write_file(tmp_path / "film.dcm")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


Say = Callable[[Sequence[str]], tuple[int, str]]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command and return its exit status and what it wrote to standard error; any other end fails the test."""

    def run(words: Sequence[str]) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["scp-node", *words])
        with pytest.raises(SystemExit) as raised:
            main()
        status = raised.value.code or 0
        assert isinstance(status, int)
        return status, capsys.readouterr().err

    return run


def test_every_command_is_tried_here() -> None:
    names = set()
    for name, command in typer.main.get_group(cli).commands.items():
        inner = getattr(command, "commands", {})
        names |= {f"{name} {part}" for part in inner} | ({name} if not inner or name == "audit" else set())
    assert names == set(COMMANDS)


def _nothing(_place: Path, _set: Callable[[str, str], None]) -> None:
    pass


def _file_for_a_folder(place: Path, _set: Callable[[str, str], None]) -> None:
    (place / "var").write_text("")


def _folder_that_cannot_be_made(_place: Path, set_: Callable[[str, str], None]) -> None:
    set_("SCP_NODE_NODE__DATA_DIR", "/proc/scp-node")


def _unreachable_database(_place: Path, set_: Callable[[str, str], None]) -> None:
    set_("SCP_NODE_DATABASE__URL", "postgresql+psycopg://user:secret@127.0.0.1:1/x")


def _damaged_database(place: Path, _set: Callable[[str, str], None]) -> None:
    (place / "var").mkdir()
    (place / "var" / "ledger.sqlite3").write_text("not a database, and longer than its header of 100 bytes" * 9)


def _folder_for_a_database(place: Path, _set: Callable[[str, str], None]) -> None:
    (place / "var" / "ledger.sqlite3").mkdir(parents=True)


def _folder_for_settings(place: Path, set_: Callable[[str, str], None]) -> None:
    set_("SCP_NODE_CONFIG", str(place))


def _no_settings(place: Path, set_: Callable[[str, str], None]) -> None:
    set_("SCP_NODE_CONFIG", str(place / "nowhere" / "scp_node.toml"))


def _settings_in_no_encoding(place: Path, _set: Callable[[str, str], None]) -> None:
    (place / "scp_node.toml").write_bytes(b'[node]\nae_title = "\xff"')


FAULTS: Final = [
    _nothing,
    _file_for_a_folder,
    _folder_that_cannot_be_made,
    _unreachable_database,
    _damaged_database,
    _folder_for_a_database,
    _folder_for_settings,
    _no_settings,
    _settings_in_no_encoding,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
@pytest.mark.parametrize("command", COMMANDS)
def test_a_fault_of_the_machine_ends_a_command_with_one_line(
    command: str,
    fault: Callable[[Path, Callable[[str, str], None]], None],
    place: Path,
    say: Say,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault(place, monkeypatch.setenv)
    every = COMMANDS[command]
    if command == "serve" and fault in {_nothing, _unreachable_database, _damaged_database, _folder_for_a_database}:
        every = [[]]  # ends at the missing bundle; the listener alone would start, and wait for the database
    for arguments in every:
        status, error = say([*command.split(), *arguments])
        assert status in {0, 1, 2}
        assert "Traceback" not in error
        assert "secret" not in error
        if status == 2:
            lines = [line for line in error.splitlines() if line.startswith("scp-node: ")]
            assert len(lines) == 1, error


@pytest.mark.parametrize(("line", "told"), NONSENSE)
def test_an_argument_that_makes_no_sense_ends_a_command_with_status_2(
    line: str, told: str, place: Path, say: Say
) -> None:
    begin_ledger(Settings(node=NodeSettings(data_dir=place / "var")))
    status, error = say(line.split())
    assert (status, told in " ".join(error.split())) == (2, True), error
    assert "secret" not in error


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_argument_is_refused_by_every_command(command: str, say: Say, place: Path) -> None:
    status, error = say([*command.split(), ""])
    assert (status, error) == (
        2,
        f"scp-node: an argument is empty after {command.rsplit(maxsplit=1)[-1]}: give a value, or leave it out\n",
    )
    assert not (place / "var").exists()


def test_an_argument_that_is_not_text_is_refused(say: Say, place: Path) -> None:
    begin_ledger(Settings(node=NodeSettings(data_dir=place / "var")))
    for command in ("report", "requeue", "reanalyse", "resolve", "feedback"):
        status, error = say([command, os.fsdecode(b"\xff")])
        assert (status, error.count("\n")) == (2, 1), error


def test_a_file_with_any_name_can_be_written(say: Say, place: Path) -> None:
    (place / "[").mkdir()
    for name in ("[/red].toml", os.fsdecode(b"\xff.toml")):
        assert say(["init", name])[0] == 0
        assert load_settings(place / name).listen.port == 1


def test_reading_commands_make_no_folder(say: Say, place: Path) -> None:
    for command in (
        "doctor",
        "health",
        "audit",
        "audit verify",
        "report",
        "requeue",
        "reanalyse",
        "resolve",
        "feedback",
        "db backup",
    ):
        say([*command.split(), *COMMANDS[command][0]])
        assert not (place / "var").exists(), command


def test_the_data_folder_is_never_the_system_s(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCP_NODE_NODE__DATA_DIR", "/proc")  # where nothing could be written anyway
    for command in ("serve", "serve --role listener", "db upgrade"):
        status, error = say(command.split())
        assert (status, "node.data_dir: /proc belongs to the system; name a folder" in error) == (2, True)
    assert say(["doctor"])[0] == 1


def test_an_identifier_that_is_damaged_is_named(say: Say, place: Path) -> None:
    (place / "var").mkdir()
    (place / "var" / "installation-id").write_text("not an identifier")
    status, error = say(["serve", "--role", "listener"])
    assert (status, "var/installation-id does not hold an identifier" in error) == (2, True)


def test_init_writes_where_the_environment_says(say: Say, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCP_NODE_CONFIG", str(place / "folder" / "site.toml"))
    assert say(["init"])[0] == 0
    assert (place / "folder" / "site.toml").is_file()
    assert not (place / "scp_node.toml").exists()
    assert say(["init"]) == (2, f"scp-node: {place}/folder/site.toml is there already; --force overwrites it\n")
    assert say(["init", "--config", "other.toml"])[0] == 0
    assert (place / "other.toml").is_file()


def _without_rights(command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user to whom the rights of files apply: root has two capabilities less."""
    less: list[str | Path] = []
    if os.geteuid() == 0:
        less = [require("setpriv"), "--bounding-set", "-dac_override,-dac_read_search"]
    return subprocess.run(
        [*less, sys.executable, "-m", "scp_node", *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_a_folder_without_rights_is_named(place: Path) -> None:
    locked = place / "locked"
    locked.mkdir(mode=0o555)
    told = {
        "serve --role listener": f"node.data_dir: {locked}/var cannot be used: Permission denied",
        "db upgrade": f"database: {locked}/var/ledger.sqlite3 cannot be made: Permission denied",
        f"init {locked}/x.toml": f"{locked}/x.toml: Permission denied",
    }
    for line, words in told.items():
        done = _without_rights(line.split(), SCP_NODE_NODE__DATA_DIR=str(locked / "var"))
        assert (done.returncode, done.stderr) == (2, f"scp-node: {words}\n")
    done = _without_rights(["doctor"], SCP_NODE_NODE__DATA_DIR=str(locked / "var"))
    assert done.returncode == 1
    assert f"PROBLEM data folder: {locked}: user {os.geteuid()} may not write there" in done.stdout


def test_a_database_without_rights_is_named(place: Path) -> None:
    begin_ledger(Settings(node=NodeSettings(data_dir=place / "var")))
    file = place / "var" / "ledger.sqlite3"
    file.chmod(0)
    for command in ("audit", "requeue --dead"):
        done = _without_rights(command.split())
        told = f"scp-node: database: {file}: user {os.geteuid()} may not read and write it\n"
        assert (done.returncode, done.stderr) == (2, told)


def test_a_database_that_may_only_be_read_is_read(place: Path) -> None:
    begin_ledger(Settings(node=NodeSettings(data_dir=place / "var")))
    (place / "var" / "ledger.sqlite3").chmod(0o400)
    assert _without_rights(["audit", "--format", "csv"]).returncode == 0


def test_a_fault_of_the_database_in_the_middle_of_a_command_is_one_line(place: Path, say: Say) -> None:
    begin_ledger(Settings(node=NodeSettings(data_dir=place / "var")))
    with closing(sqlite3.connect(place / "var" / "ledger.sqlite3")) as connection, connection:
        connection.execute("DROP TABLE work")
    for command in ("requeue 1.2.3", "requeue --dead"):
        told = "scp-node: database: (sqlite3.OperationalError) no such table: work\n"
        assert say(command.split()) == (2, told)
