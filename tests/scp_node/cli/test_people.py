"""`scp-node user` and `scp-node token`: for who is locked out of the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scp_node.cli.commands import cli
from scp_node.ledger import Ledger, PersonRole
from scp_node.opening import open_ledger
from scp_node.settings_file import load_settings
from scp_node.web.passwords import is_right
from tests.scp_node.ledger_node import ledger_engine


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("people")
    with ledger_engine(folder / "ledger.sqlite3"):
        file = folder / "scp_node.toml"
        file.write_text('[database]\nurl = "sqlite:///ledger.sqlite3"\n[web]\npublic_url = "https://ai.example"\n')
        yield file


@pytest.fixture
def ledger(config: Path) -> Iterator[Ledger]:
    with closing(open_ledger(load_settings(config))) as opened:
        yield opened


def say(config: Path, *words: str) -> str:
    done = CliRunner().invoke(cli, [*words, "--config", str(config)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_persons_are_added_changed_shut_out_and_listed(config: Path, ledger: Ledger) -> None:
    say(config, "user", "add", "root", "--role", "admin")
    password = say(config, "user", "add", "Ada").splitlines()[-1].removeprefix("password ")
    person = ledger.people.named("ada")
    assert person
    assert (person.role, person.must_change) == (PersonRole.VIEWER, True)
    assert is_right(password, ledger.people.password_hash("ada"))
    say(config, "user", "role", "ada", "reader")
    again = say(config, "user", "reset", "ada").splitlines()[-1].removeprefix("password ")
    assert is_right(again, ledger.people.password_hash("ada"))
    assert not is_right(password, ledger.people.password_hash("ada"))
    say(config, "user", "disable", "ada")
    shown = say(config, "user", "list")
    assert "shut out" in shown
    assert "reader" in shown
    assert again not in shown
    say(config, "user", "enable", "ada")
    assert ledger.people.named("ada")


def test_a_link_logs_in_who_is_locked_out(config: Path, ledger: Ledger) -> None:
    if ledger.people.named("root") is None:
        say(config, "user", "add", "root", "--role", "admin")
    address, _, token = say(config, "user", "link", "root").strip().partition("#")
    assert address == "https://ai.example/login/link"
    assert ledger.people.use_link(token) == "root"


def test_tokens_are_made_listed_and_taken_back(config: Path, ledger: Ledger) -> None:
    if ledger.people.named("root") is None:
        say(config, "user", "add", "root", "--role", "admin")
    token = say(config, "token", "add", "root", "prometheus", "--days", "0").strip()
    person = ledger.people.bearer(token)
    assert person
    assert (person.name, person.role) == ("root", PersonRole.VIEWER)
    shown = say(config, "token", "list")
    assert "prometheus" in shown
    assert "never" in shown
    assert token not in shown
    say(config, "token", "revoke", "1")
    assert ledger.people.bearer(token) is None
