"""Every licence is known and allowed, and the page of licences says what is installed."""

from __future__ import annotations

from importlib.metadata import Distribution
from pathlib import Path

import pytest
from cyclonedx.spdx import is_supported_id

from tests.supply_chain.licences import (
    NVIDIA,
    PAGE,
    PERMISSIVE,
    RESTRICTED,
    RefusedLicenceError,
    UnknownLicenceError,
    check,
    licence_of,
    licences_in,
    page,
    vendored,
)
from tests.supply_chain.locks import BELOW


def package(folder: Path, *lines: str) -> Distribution:
    """Return an installed package whose metadata has these lines."""
    place = folder / "planted-1.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("\n".join(("Metadata-Version: 2.4", "Name: planted", "Version: 1", *lines, "", "")))
    return Distribution.at(place)


def test_the_page_of_licences_says_what_is_installed() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "`make licences` writes it"


def test_every_licence_that_is_allowed_has_its_name_from_spdx() -> None:
    names = [one.removesuffix(" WITH LLVM-exception") for one in (*PERMISSIVE, *RESTRICTED) if one != NVIDIA]
    assert [name for name in names if not is_supported_id(name)] == []


def test_the_node_alone_has_no_licence_that_asks_for_more() -> None:
    assert {lock for locks, _ in RESTRICTED.values() for lock in locks} <= set(BELOW) - {"node"}


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (["License-Expression: MIT OR Apache-2.0"], "MIT OR Apache-2.0"),
        (["License: Apache 2.0", "Classifier: License :: Other/Proprietary License"], "Apache-2.0"),
        (["License: PSF-2.0"], "PSF-2.0"),
        (["License: UNKNOWN", "Classifier: License :: OSI Approved :: MIT License"], "MIT"),
    ],
)
def test_a_licence_is_read_where_a_package_says_it(lines: list[str], licence: str, tmp_path: Path) -> None:
    assert licence_of(package(tmp_path, *lines)) == licence


@pytest.mark.parametrize(
    "line", ["Summary: none", "License: see file", "Classifier: License :: OSI Approved :: BSD License"]
)
def test_a_package_that_does_not_say_its_licence_is_seen(line: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownLicenceError, match="planted"):
        licence_of(package(tmp_path, line))


@pytest.mark.parametrize(
    ("licence", "lock"),
    [("GPL-3.0-only", "dev"), ("MIT AND GPL-2.0-only", "node"), ("LGPL-3.0-only", "node"), (NVIDIA, "postgres")],
)
def test_a_licence_that_is_not_allowed_is_seen(licence: str, lock: str) -> None:
    with pytest.raises(RefusedLicenceError, match="planted"):
        check("planted", licence, lock)


def test_a_licence_with_conditions_is_allowed_where_it_is_listed() -> None:
    check("psycopg", "LGPL-3.0-only", "postgres")


def test_an_expression_names_all_its_licences() -> None:
    assert licences_in("(MIT OR Apache-2.0 WITH LLVM-exception) AND 0BSD") == [
        "MIT",
        "Apache-2.0 WITH LLVM-exception",
        "0BSD",
    ]


def test_the_scripts_of_the_web_page_are_listed_with_their_licences() -> None:
    rows = [f"| {each.package} (a script of the web page) | {each.licence} |" for each in vendored()]
    assert len(set(rows)) == 2
    assert set(rows) <= set(PAGE.read_text(encoding="utf-8").splitlines())
