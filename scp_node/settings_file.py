"""Finds and reads the settings file, explains its errors, and writes one with every default."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeGuard

from pneumonia_model.shipped import SHIPPED_BUNDLE
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from scp_node.settings import (
    CONFIG_VARIABLE,
    DEFAULT_FILE,
    ENVIRONMENT_PREFIX,
    DestinationSettings,
    NodeSettings,
    PeerSettings,
    Section,
    Settings,
    SettingsError,
)

RENAMED: Final = {
    "inference.lease_seconds": "work.lease_seconds",
    "inference.max_attempts": "work.max_attempts",
}

_TLS_FILES: Final = ("certificate", "key", "ca_file")
_PATHS: Final = (
    ("node", "data_dir"),
    ("database", "password_file"),
    ("inference", "bundle"),
    ("inference", "shadow_bundle"),
    *((*section, name) for section in (("listen", "tls"), ("destinations", "tls")) for name in _TLS_FILES),
    ("web", "certificate"),
    ("web", "key"),
    ("web", "oidc", "client_secret_file"),
    ("web", "oidc", "ca_file"),
)

# Folders that belong to the operating system: in one of them the node would change the rights of /var/spool.
_SYSTEM_FOLDERS: Final = frozenset(
    ("/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/run", "/sbin", "/sys", "/tmp")  # noqa: S108
) | {"/usr", "/var"}
_RELATIVE_SQLITE: Final = re.compile(r"(?P<scheme>sqlite(?:\+\w+)?:///)(?!/|:memory:|file:)(?P<path>[^?].*)", re.DOTALL)


def load_settings(file: Path | None = None) -> Settings:
    """Return the settings from `file`, else from $SCP_NODE_CONFIG, else from ./scp_node.toml, else the defaults.

    With a file, its relative paths and the default data folder are below the folder of that file, wherever the program
    is started. Relative paths of the environment, and the default data folder without a file, are below the working
    folder.

    Raises:
        SettingsError: the file cannot be read, or a key or value is not allowed.
    """
    path = settings_path(file)
    return _settings(_below(_read(path), path.absolute().parent) if path else {})


def parse_settings(text: str, path: Path) -> Settings:
    """Return the settings as `load_settings` would, if `text` were the contents of the file.

    Raises:
        SettingsError: see `load_settings`.
    """
    return _settings(_below(_parsed(text, path), path.absolute().parent))


def _settings(values: dict[str, Any]) -> Settings:
    _refuse_unknown_variables()
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    except ValueError as error:  # pydantic-settings: a list in the environment that is not JSON
        raise SettingsError(f"environment: {error}") from None


def settings_path(file: Path | None = None) -> Path | None:
    """Return the file from which `load_settings` reads; None if there is none."""
    return file or named_file() or (DEFAULT_FILE if _exists(DEFAULT_FILE) else None)


def named_file() -> Path | None:
    """Return the settings file that the environment names; None if it names none."""
    named = os.environ.get(CONFIG_VARIABLE)
    return Path(named) if named else None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the working folder may not be looked into: nothing of it is meant
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from None
    return _parsed(text, path)


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{path}: is nested too deeply") from None


def _below(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the values of a settings file with the paths among them below its folder."""
    sections = {name: _copied(value) for name, value in values.items()}
    node = sections.setdefault("node", {})
    if isinstance(node, dict):
        node.setdefault("data_dir", str(NodeSettings().data_dir))
    for *names, key in _PATHS:
        for section in _tables(sections, names):
            if isinstance(value := section.get(key), str) and value:
                section[key] = str(folder / value)
    database = sections.get("database")
    url = database.get("url") if isinstance(database, dict) else None
    if isinstance(url, str) and (relative := _RELATIVE_SQLITE.fullmatch(url)):
        sections["database"]["url"] = f"{relative['scheme']}{folder / relative['path']}"
    return sections


def _tables(value: Any, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the tables that are found by these names, one after the other, in every table of a list."""
    for table in value if isinstance(value, list) else [value]:
        if isinstance(table, dict) and names:
            yield from _tables(table.get(names[0]), names[1:])
        elif isinstance(table, dict):
            yield table


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    return {name: _copied(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def refuse_system_folder(settings: Settings) -> None:
    """Refuse a data folder that belongs to the operating system, such as /var: what `var` means in `/`.

    Raises:
        SettingsError: it is one of them.
    """
    if (real := os.path.realpath(settings.node.data_dir)) in _SYSTEM_FOLDERS:
        raise SettingsError(
            f"node.data_dir: {real} belongs to the system; name a folder for the node alone, such as /var/lib/scp-node"
        )


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
        elif problem["loc"][:1] != ("database",) and not isinstance(problem["input"], (dict, Settings)):
            message = f"{message}, got {problem['input']!r}"
        lines.append(message if key == "settings" else f"{key}: {message}")
    return "\n".join(lines)


def _allowed(location: tuple[int | str, ...]) -> str:
    if len(location) == 1:
        return f"there are {', '.join(Settings.model_fields)}"
    section = _section_type(str(location[0]))
    for part in location[1:-1]:
        inner = section.model_fields[str(part)].annotation if section and str(part) in section.model_fields else None
        section = inner if _is_section(inner) else section
    name = ".".join(str(part) for part in location[:-1] if isinstance(part, str))
    return f"[{name}] has {', '.join(section.model_fields)}" if section else "see config/scp_node.toml"


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


def as_toml(tree: Mapping[str, Any]) -> str:
    """Return a settings file with these values: a section for each table, and one for each table of a list."""
    lines: list[str] = []
    for name, value in tree.items():
        for table in value if isinstance(value, list) else [value]:
            lines.append(f"[[{name}]]" if isinstance(value, list) else f"[{name}]")
            lines += [f"{key} = {_toml(option)}" for key, option in table.items() if not isinstance(option, dict)]
            for key, inner in table.items():
                if isinstance(inner, dict):
                    lines.append(f"[{name}.{key}]")
                    lines += [f"{inner_key} = {_toml(option)}" for inner_key, option in inner.items()]
    return "\n".join(lines) + "\n"


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
        lines += _options(name, section)
        for key, option in section.model_fields.items():
            if (inner := _inner_section(option)) is not None:
                head = f"# [{name}.{key}]" if name in _LISTED else f"[{name}.{key}]"
                lines += ["", f"# {(inner.__doc__ or '').strip()}", head]
                lines += _options(f"{name}.{key}", inner)
    return "\n".join(lines) + "\n"


def _options(name: str, section: type[Section]) -> Iterator[str]:
    for key, option in section.model_fields.items():
        if _inner_section(option) is None:
            example = _EXAMPLES.get(name, {})
            value = example[key] if key in example else option.get_default(call_default_factory=True)
            yield f"# {option.description}"
            yield f"# {key} = {_toml(value)}"


def _inner_section(option: FieldInfo) -> type[Section] | None:
    kind = option.annotation
    return kind if _is_section(kind) else None


def _is_section(kind: object) -> TypeGuard[type[Section]]:
    return isinstance(kind, type) and issubclass(kind, Section)


def _toml(value: Any) -> str:
    if value is None or value == SHIPPED_BUNDLE:  # which is elsewhere on every machine
        return '""'
    # JSON's strings, numbers, booleans and flat lists are TOML's
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
