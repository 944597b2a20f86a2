"""Settings: what is wrong stops the start, with the name of the key and what is allowed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

import pytest

from scp_node.report import ObjectKind
from scp_node.settings import EVERY_OBJECT, Settings, SettingsError
from scp_node.settings_file import RENAMED, commented_toml, load_settings

DESTINATION: Final = '[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\n'


@pytest.fixture
def write(tmp_path: Path) -> Path:
    return tmp_path / "scp_node.toml"


def test_the_defaults_listen_on_loopback_only_and_send_nowhere() -> None:
    settings = load_settings()
    assert (settings.node.ae_title, settings.listen.host, settings.listen.port) == ("PNEUMONIA", "127.0.0.1", 11112)
    assert [peer.address for peer in settings.peers] == ["127.0.0.0/8", "::1"]
    assert settings.destinations == []
    assert settings.inference.acknowledge_demonstration is False


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[listen]\nport = "x"', r"listen\.port: .*integer.*'x'"),
        ("[listen]\nprt = 1", r"listen\.prt: no such setting; \[listen\] has host, port"),
        ("[lisen]\nport = 1", r"lisen: no such setting; there are node, listen"),
        ("[listen]\nport = 70000", r"listen\.port: .*65535, got 70000"),
        ('[node]\nae_title = "A TITLE THAT IS TOO LONG"', r"node\.ae_title: an AE title has 1 to 16"),
        ('[[peers]]\naddress = "radiology"', r"peers\.0\.address: give an IP address or a network"),
        ('[[destinations]]\nname = "a b"\nae_title = "P"\nhost = "h"', r"destinations\.0\.name: .*pattern"),
        (DESTINATION + 'accepts = ["overlay"]', r'accepts: "report" is missing; every destination gets the report'),
        (DESTINATION + "accepts = []", r'accepts: "report" is missing'),
        (DESTINATION + 'accepts = ["report", "key-object"]', r'accepts: "key-object" needs "overlay"'),
        (DESTINATION + 'accepts = ["report", "picture"]', r"destinations\.0\.accepts\.1: .*'overlay'.*'picture'"),
        ('[[peers]]\naddress = "10.0.0.1"\nends_by_closing = "x"', r"peers\.0\.ends_by_closing: .*boolean"),
        ('[routing]\nreply_to = ["pacs"]', r"routing\.reply_to: no \[\[destinations\]\] entry is named pacs"),
        ('[listen]\nhost = "0.0.0.0"', r"listen\.host: .*list who may send in \[\[peers\]\]"),
        ("port =", "is not TOML"),
        ("[inference]\nlease_seconds = 5", r"inference\.lease_seconds: is called work\.lease_seconds now"),
        ("[inference]\nmax_attempts = 5", r"inference\.max_attempts: is called work\.max_attempts now"),
        ('[inference]\nbackend = "tensorflow"', r"inference\.backend: .*'auto', 'onnxruntime' or 'torch'"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(write: Path, text: str, told: str) -> None:
    write.write_text(text)
    with pytest.raises(SettingsError, match=told):
        load_settings(write)


def test_a_destination_gets_every_kind_of_object_unless_it_says_otherwise(write: Path) -> None:
    write.write_text(DESTINATION)
    assert load_settings(write).destinations[0].accepts == list(EVERY_OBJECT) == [kind.word for kind in ObjectKind]
    write.write_text(DESTINATION + 'accepts = ["report", "text"]')
    assert load_settings(write).destinations[0].accepts == ["report", "text"]


def test_a_peer_interrupts_its_transfer_by_closing_unless_it_is_set_as_one_that_closes(write: Path) -> None:
    write.write_text('[[peers]]\naddress = "10.0.0.1"\n[[peers]]\naddress = "10.0.0.2"\nends_by_closing = true')
    assert [peer.ends_by_closing for peer in load_settings(write).peers] == [False, True]


def test_a_renamed_setting_in_the_environment_is_named_with_its_new_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCP_NODE_INFERENCE__LEASE_SECONDS", "5")
    with pytest.raises(SettingsError, match=r"inference\.lease_seconds: is called work\.lease_seconds now"):
        load_settings()


def test_the_new_names_of_settings_exist() -> None:
    for name in RENAMED.values():
        section, _, key = name.partition(".")
        assert hasattr(getattr(Settings(), section), key)


def test_a_wider_listener_starts_once_it_is_listed_who_may_send(write: Path) -> None:
    write.write_text('[listen]\nhost = "0.0.0.0"\n[[peers]]\nae_title = "CR1"\naddress = "10.0.0.0/8"')
    assert load_settings(write).peers[0].ae_title == "CR1"


def test_the_environment_wins_over_the_file(write: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write.write_text('[listen]\nport = 1\n[node]\nae_title = "FILE"')
    monkeypatch.setenv("SCP_NODE_LISTEN__PORT", "2")
    monkeypatch.setenv("SCP_NODE_CONFIG", str(write))
    settings = load_settings()
    assert (settings.listen.port, settings.node.ae_title) == (2, "FILE")


@pytest.mark.parametrize("name", ["SCP_NODE_LISTEN__PRT", "SCP_NODE_LISEN__PORT", "SCP_NODE_PORT"])
def test_a_misspelt_variable_stops_the_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "2")
    with pytest.raises(SettingsError, match="no such se"):
        load_settings()


def test_lists_come_as_json_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCP_NODE_DESTINATIONS", '[{"name": "p", "ae_title": "P", "host": "127.0.0.1"}]')
    assert load_settings().destinations[0].port == 104
    monkeypatch.setenv("SCP_NODE_DESTINATIONS", "p:104")
    with pytest.raises(SettingsError, match="destinations"):
        load_settings()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read"):
        load_settings(tmp_path / "absent.toml")


def test_a_password_in_a_database_url_is_not_printed(write: Path) -> None:
    write.write_text("[database]\nurl = 7")
    with pytest.raises(SettingsError) as raised:
        load_settings(write)
    assert "7" not in str(raised.value)


def test_the_file_in_config_lists_every_setting_with_its_default(repository: Path) -> None:
    assert (repository / "config" / "scp_node.toml").read_text(encoding="utf-8") == commented_toml()


def test_the_listed_defaults_are_the_real_ones_once_uncommented(write: Path) -> None:
    blocks = [block for block in commented_toml().split("\n\n") if "# [[" not in block]
    lines = "\n".join(blocks).splitlines()
    write.write_text("\n".join(line.removeprefix("# ") for line in lines if " = " in line or line.startswith("[")))
    assert load_settings(write) == Settings()
    assert set(tomllib.loads(write.read_text())) == set(Settings.model_fields) - {"peers", "destinations"}
