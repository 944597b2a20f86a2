"""The locks in `requirements/`: what each holds, and what the dependencies of `pyproject.toml` need here."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY: Final = Path(__file__).resolve().parents[2]
BELOW: Final = {  # lock -> the locks that are installed with it
    "node": (),
    "postgres": ("node",),
    "oidc": ("node",),
    "parquet": ("node",),
    "gpu": ("node",),
    "training": ("node", "gpu"),
    "dev": ("node", "postgres", "oidc", "parquet", "gpu", "training"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """One package of a lock."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """The one version, or what stands there instead."""
        [exact] = self.requirement.specifier
        return exact.version if exact.operator == "==" else str(exact)

    @property
    def is_for_here(self) -> bool:
        """Whether it is installed on this platform by this Python."""
        return self.requirement.marker is None or self.requirement.marker.evaluate()


def read_lock(name: str) -> list[Locked]:
    """Return the packages of `requirements/NAME.txt`."""
    lines = (REPOSITORY / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    entries = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", "").splitlines()
    return [
        Locked(
            requirement=Requirement(entry.partition(" --hash=")[0].strip()),
            hashes=tuple(re.findall(r"--hash=(\S+)", entry)),
        )
        for entry in entries
    ]


def installed_with(name: str) -> list[Locked]:
    """Return the packages of a lock, and of those below it."""
    return [each for lock in (*BELOW[name], name) for each in read_lock(lock)]


def declared(name: str) -> list[Requirement]:
    """Return what `pyproject.toml` asks for by this name: an extra, or `node` for the node itself and its build."""
    document = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    project = document["project"]
    node = [*project["dependencies"], *document["build-system"]["requires"]]
    return [Requirement(one) for one in (node if name == "node" else project["optional-dependencies"][name])]


def needed(requirements: Iterable[Requirement]) -> set[str]:
    """Return the names of all packages that these requirements need here, by what is installed."""
    waiting = list(requirements)
    met: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) not in met:
                met.add((name, extra))
                waiting.extend(_asked_by(name, extra))
    return {name for name, _ in met}


def _asked_by(name: str, extra: str) -> Iterator[Requirement]:
    """Yield what an installed package asks for, with one of its extras or without.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    for line in distribution(name).requires or ():
        asked = Requirement(line)
        if asked.marker is None or asked.marker.evaluate({"extra": extra}):
            yield asked


def installed(name: str) -> str | None:
    """Return the version that is installed, if any."""
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None
