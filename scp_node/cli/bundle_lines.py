"""Changes the two lines of the settings file that name the bundles, and nothing else in it."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scp_node.private_files import opener
from scp_node.settings import Settings, SettingsError
from scp_node.settings_file import parse_settings, settings_path

_MARK: Final = "\ufeff"  # the byte order mark of some editors
_TABLE: Final = re.compile(r"\s*\[{1,2}\s*(?P<name>[^\[\]]+?)\s*\]{1,2}\s*(?:#.*)?")
_LINE: Final = re.compile(r"\s*(?P<key>bundle|shadow_bundle)\s*=\s*(?P<value>\"(?:[^\"\\]|\\.)*\"|'[^']*')\s*(?:#.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A settings file, and what it will be: both as bytes, so that every comment and line ending stays."""

    path: Path
    before: bytes
    after: bytes
    shown: str  # the two lines as they will be
    kept_before: bytes | None  # what lies at `kept` already; None where nothing does

    @property
    def kept(self) -> Path:
        """Return the file that keeps what the settings file was."""
        return self.path.with_name(f"{self.path.name}.before-promotion")

    def carry_out(self) -> None:
        """Replace the file, in one step for whoever reads it, and keep what it was.

        Raises:
            SettingsError: it has changed since it was read, or cannot be replaced.
        """
        try:
            if self.path.read_bytes() != self.before:
                raise SettingsError(f"{self.path}: was changed meanwhile; nothing is changed, begin again")
            _write(self.kept, self.before, like=self.path)
            _write(self.path, self.after, like=self.path)
        except OSError as error:
            told = f"{self.path}: cannot be replaced: {error.strerror}; nothing is changed"
            raise SettingsError(f"{told}. Change it yourself to\n{self.shown}\nand restart the node") from error

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Put both files back where the block raises."""
        is_done = False
        try:
            yield
            is_done = True
        finally:
            if not is_done:
                self._put_back()

    def _put_back(self) -> None:
        if self.path.read_bytes() == self.after:
            _write(self.path, self.before, like=self.path)
        if self.kept_before is not None:
            _write(self.kept, self.kept_before, like=self.path)
        else:
            self.kept.unlink(missing_ok=True)


def replacement_of_bundle(config: Path | None, settings: Settings) -> Replacement:
    """Return the change of the file of these settings by which the bundle on trial is the one that reports.

    Raises:
        SettingsError: no file is read, it does not hold both lines in `[inference]`, or something else than the file
            decides what the bundle is; the message says what to write.
    """
    wanted = f'[inference]\nbundle = {json.dumps(str(settings.inference.shadow_bundle))}\nshadow_bundle = ""'
    named = settings_path(config)
    if named is None:
        raise SettingsError(f"no settings file is read, so none is changed; write one with\n{wanted}")
    path = Path(os.path.realpath(named))  # a link stays one
    before = path.read_bytes()
    text = before.decode("utf-8")
    lines = _changed(text)
    if lines is None or not _is_only_change(text, (after := "".join(lines))):
        raise SettingsError(
            f"{path}: does not hold bundle = and shadow_bundle = in [inference], each once and alone in its line; "
            f"nothing is changed. Change it yourself to\n{wanted}\nand restart the node"
        )
    then = parse_settings(after.removeprefix(_MARK), named).inference
    if (then.bundle, then.shadow_bundle) != (settings.inference.shadow_bundle, None):
        raise SettingsError(
            f"{path}: the environment names a bundle and wins over this file (SCP_NODE_INFERENCE__BUNDLE, "
            "SCP_NODE_INFERENCE__SHADOW_BUNDLE): change it there; nothing is changed"
        )
    shown = "".join(line for line, old in zip(lines, text.splitlines(keepends=True), strict=True) if line != old)
    kept = path.with_name(f"{path.name}.before-promotion")
    return Replacement(
        path=path,
        before=before,
        after=after.encode("utf-8"),
        shown=f"[inference]\n{shown.rstrip()}",
        kept_before=kept.read_bytes() if kept.exists() else None,
    )


def _changed(text: str) -> list[str] | None:
    """Return the lines with both values replaced; None if a line is missing or there twice."""
    lines = text.splitlines(keepends=True)
    found: dict[str, tuple[int, re.Match[str]]] = {}
    table = ""
    for number, line in enumerate(lines):
        content = line.rstrip("\r\n").removeprefix(_MARK)
        if header := _TABLE.fullmatch(content):
            table = header["name"]
        elif table == "inference" and (match := _LINE.fullmatch(content)):
            if match["key"] in found:
                return None
            found[match["key"]] = number, match
    if len(found) != 2:
        return None
    values = {"bundle": found["shadow_bundle"][1]["value"], "shadow_bundle": '""'}
    for key, (number, match) in found.items():
        line = lines[number]
        lines[number] = line[: match.start("value")] + values[key] + line[match.end("value") :]
    return lines


def _is_only_change(text: str, changed: str) -> bool:
    """Return whether both texts say the same in TOML but for the two bundles: a line may have stood in a string."""
    before, after = (tomllib.loads(each.removeprefix(_MARK)) for each in (text, changed))
    section = before.get("inference", {})
    if not {"bundle", "shadow_bundle"} <= section.keys():
        return False
    expected = {**section, "bundle": section["shadow_bundle"], "shadow_bundle": ""}
    return after == {**before, "inference": expected}


def _write(path: Path, content: bytes, *, like: Path) -> None:
    """Write a file in one step, with owner and mode of another."""
    status = like.stat()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "xb", opener=opener) as file:  # it may hold a password
            file.write(content)
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fchmod(file.fileno(), status.st_mode & 0o7777)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
