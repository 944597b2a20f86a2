"""Finds and reads the settings file, explains its errors, and writes one with every default."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from scp_node.settings import (
    CONFIG_VARIABLE,
    DEFAULT_FILE,
    ENVIRONMENT_PREFIX,
    DestinationSettings,
    PeerSettings,
    Section,
    Settings,
    SettingsError,
)

RENAMED: Final = {
    "inference.lease_seconds": "work.lease_seconds",
    "inference.max_attempts": "work.max_attempts",
}


def load_settings(file: Path | None = None) -> Settings:
    """Return the settings from `file`, else from $SCP_NODE_CONFIG, else from ./scp_node.toml, else the defaults.

    Raises:
        SettingsError: the file cannot be read, or a key or value is not allowed.
    """
    path = file or _file_from_environment()
    values = _read(path) if path else {}
    _refuse_unknown_variables()
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    except ValueError as error:  # pydantic-settings: a list in the environment that is not JSON
        raise SettingsError(f"environment: {error}") from None


def _file_from_environment() -> Path | None:
    if named := os.environ.get(CONFIG_VARIABLE):
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from None


def _refuse_unknown_variables() -> None:
    sections = set(Settings.model_fields)
    for name in os.environ:
        if not name.startswith(ENVIRONMENT_PREFIX) or name == CONFIG_VARIABLE:
            continue
        section = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")[0]
        if section not in sections:
            raise SettingsError(f"{name}: no such section; there are {', '.join(sorted(sections))}")


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "settings"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden" and key in RENAMED:
            message = f"is called {RENAMED[key]} now, since it governs every queue"
        elif problem["type"] == "extra_forbidden":
            message = f"no such setting; {_allowed(problem['loc'])}"
        elif key != "database.url" and not isinstance(problem["input"], (dict, Settings)):
            message = f"{message}, got {problem['input']!r}"
        lines.append(message if key == "settings" else f"{key}: {message}")
    return "\n".join(lines)


def _allowed(location: tuple[int | str, ...]) -> str:
    if len(location) == 1:
        return f"there are {', '.join(Settings.model_fields)}"
    section = _section_type(str(location[0]))
    return f"[{location[0]}] has {', '.join(section.model_fields)}" if section else "see config/scp_node.toml"


_LISTED: Final[dict[str, type[Section]]] = {"peers": PeerSettings, "destinations": DestinationSettings}


def _section_type(name: str) -> type[Section] | None:
    if name in _LISTED:
        return _LISTED[name]
    field = Settings.model_fields.get(name)
    return field.annotation if field and isinstance(field.annotation, type) else None


_EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "peers": {"ae_title": "MODALITY1", "address": "10.1.2.0/24"},
    "destinations": {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 4242},
}


def commented_toml() -> str:
    """Return a TOML file that lists every setting with its meaning and default, all of it commented out."""
    lines = [
        "# Every setting of the node, with its default. Take the # away to change one.",
        f"# Each can also be set in the environment: {ENVIRONMENT_PREFIX}<SECTION>__<KEY>, for example",
        f"# {ENVIRONMENT_PREFIX}LISTEN__PORT=11113. Lists of tables are given as JSON there.",
    ]
    for name, field in Settings.model_fields.items():
        section = _section_type(name)
        if section is None:
            continue
        doc = (section.__doc__ or "").strip()
        lines += ["", f"# {field.description if name in _LISTED else doc}"]
        lines.append(f"# [[{name}]]" if name in _LISTED else f"[{name}]")
        for key, option in section.model_fields.items():
            example = _EXAMPLES.get(name, {})
            value = example[key] if key in example else option.get_default(call_default_factory=True)
            lines += [f"# {option.description}", f"# {key} = {_toml(value)}"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    # JSON's strings, numbers, booleans and flat lists are TOML's
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
