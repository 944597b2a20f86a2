"""`make licences`: docs/licences.md, from what the installed packages say of themselves."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import Distribution, distribution
from typing import Final, cast

from cyclonedx.spdx import is_supported_id
from packaging.utils import canonicalize_name

from tests.supply_chain.locks import BELOW, REPOSITORY, read_lock

PAGE: Final = REPOSITORY / "docs" / "licences.md"
VENDOR: Final = REPOSITORY / "scp_node" / "web" / "static" / "vendor" / "vendor.toml"
NVIDIA: Final = "LicenseRef-NVIDIA-Proprietary"
_FIELD: Final = {  # what a package writes in its field License, where that is not an SPDX identifier
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "BSD 2-Clause License": "BSD-2-Clause",
    "MIT License": "MIT",
    "MIT license": "MIT",
    "NVIDIA Proprietary Software": NVIDIA,
    "PSFL": "PSF-2.0",
}
_CLASSIFIER: Final = {  # the classifiers that mean one licence; "BSD License" is several
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_READ: Final = {  # what a person read in the licence file, where the metadata leaves it open
    "contourpy": "BSD-3-Clause",
    "cuda-toolkit": NVIDIA,  # an empty package that names the libraries of NVIDIA
    "cycler": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "mpmath": "BSD-3-Clause",
    "scipy": "BSD-3-Clause",
    "sympy": "BSD-3-Clause",
    "torchvision": "BSD-3-Clause",
}
PERMISSIVE: Final = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "PSF-2.0",
        "Zlib",
    }
)
RESTRICTED: Final = {  # licence -> the locks that may have it, and what it asks
    "LGPL-3.0-only": ({"postgres"}, "who passes it on gives its source, and lets it be replaced"),
    "MPL-2.0": ({"oidc", "training", "dev"}, "who passes on a changed file of it gives that file's source"),
    NVIDIA: ({"gpu"}, "NVIDIA's terms: not free software, and may be passed on only as they say"),
}


class UnknownLicenceError(Exception):
    """A package does not say its licence in a form that is known here."""


class RefusedLicenceError(Exception):
    """A package has a licence that its lock may not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendored:
    """A file of others that the web page serves."""

    package: str
    version: str
    licence: str
    file: str
    sha256: str


def licence_of(package: Distribution) -> str:
    """Return a package's licence as an SPDX expression.

    Raises:
        UnknownLicenceError: its metadata does not say it in a known form, and nobody has read its licence file.
    """
    metadata = cast("Message", package.metadata)  # it is more than importlib.metadata promises
    name, field = metadata["Name"], metadata.get("License") or ""
    classes = [
        one.rpartition(" :: ")[2] for one in metadata.get_all("Classifier") or () if one.startswith("License ::")
    ]
    found = [
        metadata.get("License-Expression"),
        _READ.get(canonicalize_name(name)),
        _FIELD.get(field, field if _is_expression(field) else None),
        *(_CLASSIFIER.get(one) for one in classes),
    ]
    try:
        return next(one for one in found if one)
    except StopIteration:
        raise UnknownLicenceError(f"{name}: License {field[:40]!r}, classifiers {classes}") from None


def licences_in(expression: str) -> list[str]:
    """Return every licence that an SPDX expression names."""
    return [one.strip("() ") for one in re.split(r" (?:AND|OR) ", expression)]


def check(name: str, expression: str, lock: str) -> None:
    """Check that a lock may hold a package of this licence; of a choice between licences, all have to be allowed.

    Raises:
        RefusedLicenceError: it may not.
    """
    for licence in licences_in(expression):
        if licence not in PERMISSIVE and lock not in RESTRICTED.get(licence, (set(), ""))[0]:
            raise RefusedLicenceError(f"{name}: {licence} is not allowed in requirements/{lock}.txt")


def vendored() -> list[Vendored]:
    """Return the files of others that the web page serves."""
    files = tomllib.loads(VENDOR.read_text(encoding="utf-8"))["file"]
    return [
        Vendored(
            package=each["package"].partition("@")[0],
            version=each["package"].partition("@")[2],
            licence=each["spdx"],
            file=each["name"],
            sha256=each["sha256"],
        )
        for each in files
    ]


def page() -> str:
    """Return the page of all licences.

    Raises:
        UnknownLicenceError: as `licence_of`.
        RefusedLicenceError: as `check`.
    """
    restricted = [f"| {name} | {', '.join(sorted(locks))} | {asks} |" for name, (locks, asks) in RESTRICTED.items()]
    return _TEXT.format(
        tables="\n".join(_tables()),
        permissive=", ".join(sorted(PERMISSIVE)),
        restricted="\n".join(restricted),
        elsewhere=", ".join(sorted({each.name for name in BELOW for each in read_lock(name) if not each.is_for_here})),
    )


def _tables() -> Iterator[str]:
    seen: set[str] = set()
    for lock in BELOW:
        yield f"\n## {_HEADINGS[lock]}\n\n| package | licence |\n|---|---|"
        for each in read_lock(lock):
            if each.is_for_here and each.name not in seen:
                seen.add(each.name)
                expression = licence_of(distribution(each.name))
                check(each.name, expression, lock)
                yield f"| {each.name} | {expression} |"
        if lock == "node":
            for name, licence in sorted({(each.package, each.licence) for each in vendored()}):
                check(name, licence, lock)
                yield f"| {name} (a script of the web page) | {licence} |"


def _is_expression(text: str) -> bool:
    return all(is_supported_id(one) or one.startswith("LicenseRef-") for one in licences_in(text))


_HEADINGS: Final = {
    "node": "The node",
    "postgres": "The extra `postgres` adds",
    "oidc": "The extra `oidc` adds",
    "parquet": "The extra `parquet` adds",
    "gpu": "The extra `gpu` adds",
    "training": "The extra `training` adds to `gpu`",
    "dev": "The developer's tools add to all of these",
}
_TEXT: Final = """# Licences of what is installed

`make licences` writes this page from what the installed packages say of themselves, as SPDX expressions; where that
leaves it open, a person read the licence file. A test compares it with what is installed, and fails for a licence that
is unknown or not allowed here. The versions are those of [requirements/](../requirements/). scp-node is Apache-2.0.

A package may hold libraries of others in binary form, whose licences lie beside it: OpenCV's holds FFmpeg (LGPL 2.1).

Allowed everywhere: {permissive}. Allowed where it says:

| licence | in | it asks |
|---|---|---|
{restricted}

The packages of the node alone declare licences of the first kind only.
{tables}

Not examined, since they are installed on other platforms only: {elsewhere}.
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
