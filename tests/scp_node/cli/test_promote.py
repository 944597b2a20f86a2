"""`scp-node model promote`: both lines of the settings file and an event, or nothing at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from pneumonia_model.bundle import load_bundle
from sqlalchemy import text

from scp_node.cli.bundle_lines import Replacement
from scp_node.cli.console import UsageError
from scp_node.cli.promote import promote
from scp_node.inference.served_model import ServedModel
from scp_node.ledger import shadow as ledger_shadow
from scp_node.opening import open_ledger
from scp_node.settings import SettingsError
from scp_node.settings_file import load_settings
from tests.model.bundles import second_bundle
from tests.node import BUNDLE, destination
from tests.scp_node.ledger_node import ledger_engine

FILE: Final = """\
# The node of the second floor.  Password: see the safe.
[node]
data_dir = "var"    # on the big disk

[inference]
# The first one came with the program.
  bundle = "{bundle}"  # since March
shadow_bundle = 'trial bundles/new'\t# from the "readers"
operating_point = "half"

[log]
level = "WARNING" # quiet
"""


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return second_bundle(tmp_path_factory.mktemp("bundles") / "new")


@pytest.fixture
def site(tmp_path: Path, trial: Path) -> Path:
    """A site's settings file, with comments of its own, beside a ledger."""
    (tmp_path / "trial bundles").mkdir()
    (tmp_path / "trial bundles" / "new").symlink_to(trial)
    file = tmp_path / "scp_node.toml"
    file.write_text(FILE.format(bundle=BUNDLE))
    file.chmod(0o640)
    (tmp_path / "var").mkdir()
    with ledger_engine(tmp_path / "var" / "ledger.sqlite3"):
        return file


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the golden check, which takes its time."""

    class Opened:
        runtime = "none, cpu"

    monkeypatch.setattr(ServedModel, "open", lambda _settings: Opened())


def events(file: Path) -> list[dict[str, str]]:
    """Return the details of the promotions that the audit has."""
    with closing(open_ledger(load_settings(file))) as ledger, ledger._engine.connect() as connection:
        rows = connection.execute(text("SELECT detail FROM event WHERE kind = 'model-promoted'")).scalars()
        return [json.loads(row) for row in rows]


def unchanged(file: Path) -> bool:
    return file.read_text() == FILE.format(bundle=BUNDLE) and events(file) == [] and others(file) == []


def others(file: Path) -> list[str]:
    """Return what lies beside the file that was not there before."""
    known = {file.name, "trial bundles", "var"}
    return sorted(each.name for each in file.parent.iterdir() if each.name not in known)


@pytest.mark.usefixtures("unchecked")
def test_the_bundle_on_trial_reports_and_every_other_byte_of_the_file_stays(
    site: Path, trial: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = site.read_text()
    with pytest.raises(UsageError, match="--yes"):
        promote(site, None, yes=False)
    assert unchanged(site)
    told = capsys.readouterr().out
    assert "golden inputs agree on none, cpu" in told
    assert "bundle = 'trial bundles/new'  # since March" in told

    promote(site, "Ana Souza", yes=True)
    assert "restart the node" in capsys.readouterr().out
    assert site.read_text() == before.replace(f'"{BUNDLE}"', "'trial bundles/new'").replace(
        "shadow_bundle = 'trial bundles/new'", 'shadow_bundle = ""'
    )
    inference = load_settings(site).inference
    assert (inference.bundle, inference.shadow_bundle) == (site.parent / "trial bundles" / "new", None)
    kept = site.with_name("scp_node.toml.before-promotion")
    assert kept.read_text() == before
    assert [file.stat().st_mode & 0o777 for file in (site, kept)] == [0o640, 0o640]
    assert events(site) == [
        {
            "bundle": "trial-9.0.0",
            "bundle_digest": load_bundle(trial).digest,
            "former_bundle": load_bundle(BUNDLE).name + "-" + load_bundle(BUNDLE).version,
            "former_digest": load_bundle(BUNDLE).digest,
            "by": "Ana Souza",
        }
    ]

    with pytest.raises(UsageError, match="no bundle is on trial"):
        promote(site, None, yes=True)
    assert len(events(site)) == 1, "a second time nothing is left to do"
    assert others(site) == [kept.name]


def without_its_line(text: str) -> str:
    return text.replace('  bundle = "', '  # bundle = "')


def in_one_line(text: str) -> str:
    return text[: text.index("[inference]")] + 'inference = { bundle = "a", shadow_bundle = "trial bundles/new" }\n'


def dotted(text: str) -> str:
    start = text.index("[inference]")
    return 'inference.shadow_bundle = "trial bundles/new"\n' + text[:start] + text[text.index("[log]") :]


def in_a_text(_text: str) -> str:
    """The lines stand in the text of another setting, and those that count have other spaces."""
    lines = '[inference]\nbundle = "a"\nshadow_bundle = "b"\n'
    return f'[node]\nmodel_name = """\n{lines}"""\n[inference]\n"shadow_bundle" = "trial bundles/new"\n'


@pytest.mark.parametrize(
    "change", [without_its_line, in_one_line, dotted, in_a_text], ids=lambda change: change.__name__
)
def test_a_file_in_another_form_is_left_alone_and_it_is_said_what_to_write(
    site: Path, change: Callable[[str], str]
) -> None:
    other = change(site.read_text())
    site.write_text(other)
    wanted = f'bundle = "{site.parent}/trial bundles/new"\nshadow_bundle = ""'
    with pytest.raises((SettingsError, UsageError)) as refused:
        promote(site, None, yes=True)
    if change is not in_one_line:  # its bundle is not there, so it is refused before
        assert wanted in str(refused.value)
    assert site.read_text() == other
    assert others(site) == []


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
@pytest.mark.parametrize("mark", ["\ufeff", ""])
@pytest.mark.usefixtures("unchecked")
def test_line_endings_and_the_mark_of_an_editor_stay(site: Path, ending: str, mark: str) -> None:
    lines = site.read_text().replace("\n", ending)
    site.write_bytes((mark + lines).encode())
    promote(site, None, yes=True)
    after = site.read_bytes().decode()
    assert after.startswith(mark)
    assert after.count(ending) == lines.count(ending)
    assert load_settings(site).inference.shadow_bundle is None


@pytest.mark.usefixtures("unchecked")
def test_a_link_stays_a_link(site: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    real = site.rename(tmp_path / "etc" / "real.toml")
    site.symlink_to(real)
    promote(site, None, yes=True)
    assert site.is_symlink()
    assert real.with_name("real.toml.before-promotion").exists()
    assert load_settings(site).inference.bundle == tmp_path / "trial bundles" / "new"


@pytest.mark.parametrize("name", ["BUNDLE", "SHADOW_BUNDLE"])
@pytest.mark.usefixtures("unchecked")
def test_an_environment_that_wins_over_the_file_is_named(
    site: Path, trial: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = BUNDLE if name == "BUNDLE" else trial
    monkeypatch.setenv(f"SCP_NODE_INFERENCE__{name}", str(value))
    with pytest.raises(SettingsError, match="environment"):
        promote(site, None, yes=True)
    monkeypatch.undo()
    assert unchanged(site)


def test_without_a_file_it_is_said_what_to_write(tmp_path: Path, trial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCP_NODE_INFERENCE__SHADOW_BUNDLE", str(trial))
    monkeypatch.setenv("SCP_NODE_INFERENCE__BUNDLE", str(BUNDLE))
    with pytest.raises(SettingsError, match="no settings file is read"):
        promote(None, None, yes=True)


# -- a step that fails leaves everything as it was


def test_a_golden_check_that_fails_changes_nothing(site: Path) -> None:
    trial = site.parent / "trial bundles" / "new"
    trial.unlink()
    logits = [0.0] * len(load_bundle(BUNDLE).manifest["golden"]["logits"])
    second_bundle(trial, golden={"logits": logits})
    with pytest.raises(Exception, match="golden logits differ"):
        promote(site, None, yes=True)
    assert unchanged(site)


def test_an_operating_point_that_the_bundle_lacks_changes_nothing(site: Path) -> None:
    trial = site.parent / "trial bundles" / "new"
    trial.unlink()
    second_bundle(trial, operating_points=load_bundle(BUNDLE).manifest["operating_points"][:1])
    with pytest.raises(UsageError, match=r"model promote: inference\.operating_point: trial has"):
        promote(site, None, yes=True)
    assert unchanged(site)


def test_a_demonstration_bundle_that_could_not_report_to_the_destinations_changes_nothing(site: Path) -> None:
    entry = destination(104, host="192.0.2.1")
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in entry.items())
    site.write_text(f"{site.read_text()}[[destinations]]\n{lines}\n")
    with pytest.raises(SettingsError, match=r"trial-9\.0\.0 is a demonstration model"):
        promote(site, None, yes=True)
    assert events(site) == []
    assert others(site) == []


@pytest.mark.usefixtures("unchecked")
def test_a_file_that_cannot_be_replaced_leaves_no_event(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the file alone is mounted into a container: it can be written, and not replaced."""
    replace = Path.replace

    def busy(self: Path, target: Path) -> Path:
        if target == site:
            raise OSError(16, "Device or resource busy")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    with pytest.raises(SettingsError, match=r"busy; nothing is changed\. Change it yourself to\n\[inference\]"):
        promote(site, None, yes=True)
    assert unchanged(site)


@pytest.mark.usefixtures("unchecked")
def test_a_commit_that_fails_puts_the_file_back(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = site.with_name("scp_node.toml.before-promotion")
    kept.write_text("of the year before")
    carry_out = Replacement.carry_out

    def then_the_database_goes_away(self: Replacement) -> None:
        carry_out(self)
        assert load_settings(site).inference.shadow_bundle is None
        raise ConnectionError("database is gone")

    monkeypatch.setattr(Replacement, "carry_out", then_the_database_goes_away)
    with pytest.raises(ConnectionError):
        promote(site, None, yes=True)
    assert site.read_text() == FILE.format(bundle=BUNDLE)
    assert kept.read_text() == "of the year before"
    assert events(site) == []


@pytest.mark.usefixtures("unchecked")
def test_a_file_that_somebody_edits_meanwhile_is_left_to_them(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def edited(*_: object, **__: object) -> None:
        site.write_text("# new\n")

    monkeypatch.setattr("scp_node.ledger.shadow.record_event", edited)
    with pytest.raises(SettingsError, match="was changed meanwhile"):
        promote(site, None, yes=True)
    assert site.read_text() == "# new\n"
    assert others(site) == []


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "x" * 129], ids=["lines", "NUL", "long"])
def test_a_name_that_is_none_is_refused(site: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--by"):
        promote(site, name, yes=True)
    assert unchanged(site)


@pytest.mark.usefixtures("unchecked")
def test_without_a_name_it_is_the_system_s_user(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("scp_node.cli.promote.getpass.getuser", nobody)
    promote(site, None, yes=True)
    assert events(site)[0]["by"].startswith(f"{os.geteuid()}@")


@pytest.mark.usefixtures("unchecked")
def test_the_pairs_of_both_bundles_are_counted_before_it_is_done(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    counts = ledger_shadow.Shadow.counts

    def noted(self: ledger_shadow.Shadow, query: ledger_shadow.ShadowQuery) -> ledger_shadow.ShadowCounts:
        asked.append((query.bundle_digest, query.reporting_digest))
        return counts(self, query)

    monkeypatch.setattr(ledger_shadow.Shadow, "counts", noted)
    with pytest.raises(UsageError):
        promote(site, None, yes=False)
    assert "both looked at 0 images and disagree about 0" in capsys.readouterr().out
    assert asked == [(load_bundle(site.parent / "trial bundles" / "new").digest, load_bundle(BUNDLE).digest)]
