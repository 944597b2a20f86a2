"""Settings: what is wrong stops the start, with the name of the key and what is allowed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

import pytest

from scp_node.ledger import LedgerError
from scp_node.opening import open_engine
from scp_node.report.kinds import ObjectKind
from scp_node.settings import EVERY_OBJECT, NodeSettings, Settings, SettingsError
from scp_node.settings_file import RENAMED, commented_toml, load_settings, refuse_system_folder

PASSWORD: Final = "hunter 2/@:%"  # noqa: S105 - of nobody
DESTINATION: Final = '[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\n'


@pytest.fixture
def write(tmp_path: Path) -> Path:
    return tmp_path / "scp_node.toml"


# Where paths lie: the same node, wherever it is started


def test_the_paths_of_a_file_are_below_its_folder_wherever_the_program_runs(
    write: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write.write_text(
        '[node]\ndata_dir = "data"\n[inference]\nbundle = "bundles/mine"\nshadow_bundle = "new"\n'
        '[database]\nurl = "sqlite+pysqlite:///data/it is.sqlite3?timeout=9"'
    )
    for place, name in (("/", write), (tmp_path, Path("scp_node.toml")), (tmp_path.parent, write)):
        monkeypatch.chdir(place)
        settings = load_settings(name)
        assert settings.node.data_dir == tmp_path / "data"
        assert settings.inference.bundle == tmp_path / "bundles" / "mine"
        assert settings.inference.shadow_bundle == tmp_path / "new"
        assert settings.database_url == f"sqlite+pysqlite:///{tmp_path}/data/it is.sqlite3?timeout=9"


def test_the_files_of_tls_are_below_its_folder_for_each_destination(write: Path) -> None:
    tls = 'certificate = "a.pem"\nkey = "tls/a.key"\nca_file = "/etc/ca.pem"\n'
    write.write_text(
        f'[listen.tls]\n{tls}[[destinations]]\nname = "one"\nae_title = "ONE"\nhost = "h"\n'
        f'[destinations.tls]\nenabled = true\n{tls}[[destinations]]\nname = "two"\nae_title = "TWO"\nhost = "h"\n'
    )
    settings = load_settings(write)
    for used in (settings.listen.tls, settings.destinations[0].tls):
        assert (used.certificate, used.key) == (write.parent / "a.pem", write.parent / "tls" / "a.key")
        assert used.ca_file == Path("/etc/ca.pem")
    assert settings.destinations[1].tls.certificate is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[listen.tls]\ncertificate = "a"', "listen.tls: certificate and key belong together"),
        ('[listen.tls]\ncertificate = "a"\nkey = "b"', "listen.tls: ca_file: name the authority"),
        (
            '[listen.tls]\ncertificate = "a"\nkey = "b"\nca_file = "c"\nhost = "0.0.0.0"',
            "listen.tls.host: 0.0.0.0 is reachable from outside; list who may send in [[peers]] first",
        ),
        ('[listen.tls]\ncertificate = "a"\nkey = "b"\nca_file = "c"\nport = 11112', "listen.tls.port: it is that"),
        ('[[peers]]\naddress = "10.0.0.1"\ncertificate = "cr1"', "peers: one has to show a certificate, and none"),
        ("[listen.tls]\nversions = []", "listen.tls.versions"),
        ('[listen.tls]\ncertificates = "a"', "[listen.tls] has certificate, key, ca_file"),
        (
            '[[destinations]]\nname = "a"\nae_title = "A"\nhost = "h"\n[destinations.tls]\nkey = "b"',
            "destinations.0.tls: certificate and key belong together",
        ),
    ],
)
def test_tls_that_cannot_be_meant_is_refused_by_its_name(write: Path, text: str, told: str) -> None:
    write.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_settings(write)
    assert told in str(refused.value)


def test_the_default_data_folder_is_beside_the_file(write: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write.write_text("[listen]\nport = 1\n")
    monkeypatch.chdir("/")
    assert load_settings(write).node.data_dir == write.parent / "var"
    monkeypatch.setenv("SCP_NODE_CONFIG", str(write))
    assert load_settings().database_url == f"sqlite:///{write.parent}/var/ledger.sqlite3"


def test_paths_of_the_environment_and_without_a_file_are_below_the_working_folder(
    write: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings().node.data_dir == Path("var")
    write.write_text('[node]\ndata_dir = "of the file"')
    monkeypatch.setenv("SCP_NODE_NODE__DATA_DIR", "of the environment")
    assert load_settings(write).node.data_dir == Path("of the environment")


def test_no_bundle_is_on_trial_unless_one_is_set(write: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().inference.shadow_bundle is None
    write.write_text('[inference]\nshadow_bundle = ""')
    assert load_settings(write).inference.shadow_bundle is None
    monkeypatch.setenv("SCP_NODE_INFERENCE__SHADOW_BUNDLE", "trial")
    assert load_settings(write).inference.shadow_bundle == Path("trial")


@pytest.mark.parametrize("url", ["sqlite:////srv/x.sqlite3", "sqlite://", "postgresql+psycopg://u@h/d", ""])
def test_a_url_without_a_relative_path_stays_as_it_is(write: Path, url: str) -> None:
    write.write_text(f'[database]\nurl = "{url}"')
    assert load_settings(write).database.url == url


def test_without_a_setting_the_bundle_is_the_shipped_one(
    write: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write.write_text('[inference]\nbundle = ""')
    monkeypatch.chdir("/")
    bundle = load_settings().inference.bundle
    assert bundle == load_settings(write).inference.bundle
    assert bundle.is_relative_to(repository / "model" / "bundles")
    assert (bundle / "manifest.json").is_file()


@pytest.mark.parametrize("folder", ["/", "/usr", "/etc/../usr/"])
def test_a_folder_of_the_system_is_refused_as_data_folder(folder: str) -> None:
    with pytest.raises(SettingsError, match=r"node\.data_dir: /(usr)? ?belongs to the system; name a folder"):
        refuse_system_folder(Settings(node=NodeSettings(data_dir=Path(folder))))
    refuse_system_folder(Settings(node=NodeSettings(data_dir=Path(folder, "scp-node"))))


def test_the_default_data_folder_is_refused_where_it_is_the_system_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    with pytest.raises(SettingsError, match=r"node\.data_dir: /var belongs to the system"):
        refuse_system_folder(load_settings())


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
        ("a = " + "[" * 5000, "is nested too deeply"),
        ('[node]\ndata_dir = ""', r"node\.data_dir: name a folder"),
        ('[node]\ndata_dir = "a\\u0000b"', r"node\.data_dir: a path holds no NUL character"),
        ("node = 3", r"node: Input should be a valid dictionary"),
        ('database = "x"', r"database: Input should be a valid dictionary"),
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
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read: No such file or directory"):
        load_settings(tmp_path / "absent.toml")
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings(tmp_path)


def test_a_file_of_an_editor_that_writes_a_byte_order_mark_is_read(write: Path) -> None:
    write.write_bytes(b"\xef\xbb\xbf[listen]\nport = 7\n")
    assert load_settings(write).listen.port == 7


def test_a_password_in_a_database_url_is_not_printed(write: Path) -> None:
    write.write_text("[database]\nurl = 7")
    with pytest.raises(SettingsError) as raised:
        load_settings(write)
    assert "7" not in str(raised.value)


@pytest.mark.parametrize(
    "form", ['[database]\nurl = "{}"\nupgrade_at_start = 3', 'database = "{}"', '[database]\nurl = ["{}"]']
)
def test_an_error_beside_a_password_does_not_print_it(write: Path, form: str) -> None:
    write.write_text(form.format("postgresql+psycopg://node:hunter2@host/ledger"))
    with pytest.raises(SettingsError, match="database") as raised:
        load_settings(write)
    assert "hunter2" not in str(raised.value)


def test_a_password_is_not_in_the_text_of_the_settings(write: Path) -> None:
    write.write_text('[database]\nurl = "postgresql+psycopg://node:hunter2@host/ledger"')
    assert "hunter2" not in f"{load_settings(write)!r} {load_settings(write)}"


# The password of the database, from a file


def with_password(write: Path, *, url: str = "postgresql+psycopg://node@host/ledger", mode: int = 0o600) -> Settings:
    (write.parent / "password").write_text(f"{PASSWORD}\n")
    (write.parent / "password").chmod(mode)
    write.write_text(f'[database]\nurl = "{url}"\npassword_file = "password"')
    return load_settings(write)


def test_the_password_of_the_database_is_read_from_a_file_beside_the_settings(write: Path) -> None:
    engine = open_engine(with_password(write))
    assert engine.url.password == PASSWORD
    assert "hunter" not in f"{engine!r} {engine.url}"


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o660])
def test_a_password_file_that_others_may_read_is_refused(write: Path, mode: int) -> None:
    settings = with_password(write, mode=mode)
    with pytest.raises(LedgerError, match=r"database\.password_file: .* others may use it: chmod 600"):
        open_engine(settings)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "SQLite has no password"),
        ("sqlite:////var/lib/x.sqlite3", "SQLite has no password"),
        ("postgresql+psycopg://node:hunter2@host/ledger", "url holds a password as well"),
    ],
)
def test_a_password_file_that_has_no_use_is_refused(write: Path, url: str, told: str) -> None:
    with pytest.raises(SettingsError, match=f"database: password_file: {told}") as raised:
        with_password(write, url=url)
    assert "hunter2" not in str(raised.value)


def test_the_file_in_config_lists_every_setting_with_its_default(repository: Path) -> None:
    assert (repository / "config" / "scp_node.toml").read_text(encoding="utf-8") == commented_toml()


def test_the_listed_defaults_are_the_real_ones_once_uncommented(write: Path) -> None:
    blocks = [block for block in commented_toml().split("\n\n") if "\n# [" not in f"\n{block}"]
    lines = "\n".join(blocks).splitlines()
    write.write_text("\n".join(line.removeprefix("# ") for line in lines if " = " in line or line.startswith("[")))
    assert load_settings(write) == Settings(node=NodeSettings(data_dir=write.parent / "var"))  # beside the file
    assert set(tomllib.loads(write.read_text())) == set(Settings.model_fields) - {"peers", "destinations"}
