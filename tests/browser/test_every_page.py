"""What holds for every page there is, whoever writes it: this file finds the pages by their routes."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from scp_node.web import pages
from tests.browser.examination import (
    barriers,
    foreign_markup,
    overflow,
    overweight,
    unlabelled,
    without_visible_focus,
)
from tests.browser.place import ADMIN, Place
from tests.browser.screen import DESK, PHONE, Screen

COLOURS: Final = ("color-contrast",)
REDIRECTS: Final = {"/login"}  # for who is logged in
FOR_NOBODY: Final = ("/login", "/login/link", "/login?next=/persons")
WRONG: Final = ("/nothing", "/studies/1.2.3", "/persons?page=%00")


def addresses() -> Iterator[str]:
    """Yield the paths of all routes that a browser may open, with the names of their parameters."""
    for found in pkgutil.iter_modules(pages.__path__, f"{pages.__name__}."):
        router = getattr(importlib.import_module(found.name), "router", None)
        if isinstance(router, APIRouter):
            yield from (
                each.path for each in router.routes if isinstance(each, APIRoute) and "GET" in (each.methods or ())
            )


def filled(path: str, place: Place) -> str:
    """Return a path with a value for each parameter: those of the study whose texts are hostile."""
    film = place.films["hostile 0"]
    page = place.node.ledger.study_pages.page(film.StudyInstanceUID)
    assert page
    [patient] = page.patients
    known = {
        "study_uid": film.StudyInstanceUID,
        "sop_instance_uid": film.SOPInstanceUID,
        "uid": film.SOPInstanceUID,
        "image_id": patient.images[0].id,
        "subject_id": patient.id,
    }
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: str(known[found[1]]), path)


def examine(screen: Screen) -> list[str]:
    """Return everything that is wrong with the page that is open, in both themes, on a desk and on a phone.

    All rules of axe are asked in each theme and in each width once; the other two views differ in colours alone.
    """
    problems = [*foreign_markup(screen), *unlabelled(screen), *overweight(screen), *without_visible_focus(screen)]
    for theme, width, rules in (
        ("light", DESK, ()),
        ("dark", DESK, COLOURS),
        ("dark", PHONE, ()),
        ("light", PHONE, COLOURS),
    ):
        screen.show(theme, width)
        problems += [f"{theme}, {width}: {each}" for each in (*barriers(screen, rules), *overflow(screen))]
    return problems


def test_all_pages_are_found() -> None:
    assert {"/login", "/password", "/persons"} <= set(addresses())


@pytest.mark.parametrize("path", sorted(set(addresses()) - REDIRECTS))
def test_a_page_is_whole_light_and_open_to_everybody(place: Place, path: str) -> None:
    address = filled(path, place)
    with place.visit(ADMIN) as screen:
        asked = screen.page.request.get(place.address + address)
        assert asked.status < HTTPStatus.INTERNAL_SERVER_ERROR, asked.text()
        if not asked.headers.get("content-type", "").startswith("text/html"):
            return
        if not asked.text().lstrip().lower().startswith("<!doctype html>"):  # a part of a page
            return
        assert screen.open(address) == asked.status
        assert not (problems := examine(screen)), "\n".join(problems)
        expected = [HTTPStatus(asked.status)] if asked.status >= HTTPStatus.BAD_REQUEST else []
        assert screen.faults(expected=expected) == []


@pytest.mark.parametrize("path", FOR_NOBODY)
def test_so_is_what_is_shown_to_who_is_not_logged_in(place: Place, path: str) -> None:
    with place.visit() as screen:
        screen.open(path)
        assert not (problems := examine(screen)), "\n".join(problems)
        assert screen.faults(expected=[HTTPStatus.UNAUTHORIZED]) == []


@pytest.mark.parametrize("path", WRONG)
def test_so_is_the_answer_to_a_wrong_address(place: Place, path: str) -> None:
    with place.visit(ADMIN) as screen:
        status = screen.open(path)
        assert status < HTTPStatus.INTERNAL_SERVER_ERROR
        assert not (problems := examine(screen)), "\n".join(problems)
        assert screen.faults(expected=[HTTPStatus(status)]) == []


def test_what_would_be_wrong_is_found(place: Place) -> None:
    """The negative control: each examination finds what was planted for it."""
    with place.visit() as screen:
        screen.open("/login")
        screen.run("""() => {
          const main = document.querySelector("main");
          const planted = document.createElement("div");
          planted.setAttribute("onclick", "hit(3)");
          planted.className = "planted";
          planted.append(Object.assign(document.createElement("input"), {value: "x"}));
          planted.append(document.createElement("select"));
          main.append(planted);
          const wide = document.createElement("pre");
          wide.textContent = "W".repeat(500);
          wide.className = "scroll";
          main.append(Object.assign(document.createElement("p"), {textContent: "W".repeat(500)}));
          const script = document.createElement("script");
          script.textContent = "hit(4)";
          main.append(script);
          fetch("http://198.51.100.1/").catch(() => {});
          document.querySelectorAll("input").forEach(each => each.style.setProperty("outline", "none"));
        }""")
        screen.show("light", PHONE)
        assert any("scrolls sideways" in each for each in overflow(screen))
        assert any("select-name" in each for each in barriers(screen))
        assert any("<select>" in each for each in unlabelled(screen))
        assert any("<input" in each for each in without_visible_focus(screen))
        assert any("onclick" in each for each in foreign_markup(screen))
        faults = screen.faults()
        assert any("securitypolicyviolation: script-src-elem inline" in each for each in faults)
        assert any("securitypolicyviolation: connect-src" in each for each in faults)
        assert not any("ran what a peer sent" in each for each in faults)
