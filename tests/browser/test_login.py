"""Logging in and out, as a browser shows it."""

from __future__ import annotations

import re
from datetime import timedelta
from http import HTTPStatus
from typing import Final

from playwright.sync_api import expect

from tests.browser.place import ACTOR, ADMIN, PASSWORD, SLOWEST, VIEWER, Place
from tests.browser.screen import Screen
from tests.waiting import wait_until

TOO_MANY: Final = re.compile(r"Too many failures: wait \d+ s\.")
NEW_PASSWORD: Final = "a longer one of my own"  # noqa: S105 - of a test


def log_in(screen: Screen, name: str, password: str) -> None:
    screen.field("Name").fill(name)
    screen.field("Password").fill(password)
    screen.press("Log in")


def test_who_logs_in_comes_to_the_page_that_was_asked_for_and_sees_nothing_after_logging_out(place: Place) -> None:
    with place.visit() as screen:
        screen.open("/password")
        assert screen.place() == "/login?next=/password"
        log_in(screen, VIEWER, PASSWORD)
        assert screen.place() == "/password"
        screen.press("Log out")
        assert screen.place() == "/login"
        screen.back()
        screen.page.wait_for_url(re.compile("/login"))
        expect(screen.field("Old password")).to_have_count(0)
        assert "viewer" not in screen.text()
        assert screen.faults() == []


def test_the_sixth_wrong_password_has_to_wait_and_then_the_right_one_is_taken(place: Place) -> None:
    with place.visit() as screen:
        screen.open("/login?next=/password")
        for _ in range(5):
            log_in(screen, VIEWER, "not the password")
            expect(screen.page.get_by_role("alert")).to_have_text("Name or password is wrong.")
            expect(screen.field("Name")).to_have_value(VIEWER)
        for _ in range(6):  # the wait begins with a second, which a busy machine may need for one try
            log_in(screen, VIEWER, "not the password")
            if TOO_MANY.search(screen.text()):
                break
        expect(screen.page.get_by_role("alert")).to_have_text(TOO_MANY)

        def is_in() -> bool:
            log_in(screen, VIEWER, PASSWORD)
            return screen.place() == "/password"

        wait_until(is_in, SLOWEST, what="the wait is over")
        assert screen.faults(expected=[HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS]) == []


def test_a_link_logs_in_by_one_button_and_does_not_stay_in_the_address(place: Place) -> None:
    token = place.node.ledger.people.make_link(VIEWER, lifetime=timedelta(hours=1))
    with place.visit() as screen:
        screen.open(f"/login/link#{token}")
        assert token not in screen.page.url
        screen.press("Log in")
        assert screen.place() == "/studies"
        assert screen.faults() == []


def test_a_new_person_has_to_choose_a_password_first(place: Place) -> None:
    with place.visit(ADMIN) as screen:
        screen.open("/persons")
        screen.field("Name").fill("Grete Müller")
        screen.press("Add")
        made = screen.page.get_by_role("status").locator("code").inner_text()
        assert screen.faults() == []
    with place.visit() as screen:
        screen.open("/persons")
        log_in(screen, "grete müller", made)
        assert screen.place() == "/password"
        screen.field("Old password").fill(made)
        screen.field("New password, at least 12 characters").fill(NEW_PASSWORD)
        screen.field("New password again").fill(NEW_PASSWORD)
        screen.press("Change")
        assert screen.place() != "/password"
        screen.faults()
        assert screen.open("/persons") == HTTPStatus.FORBIDDEN
        assert "This needs the role admin" in screen.text()
        assert screen.faults(expected=[HTTPStatus.FORBIDDEN]) == []


def test_a_role_taken_away_counts_at_the_next_click(place: Place) -> None:
    place.node.ledger.people.add("for a while", ADMIN, actor=ACTOR)
    with place.visit(ADMIN) as admin:
        admin.open("/persons")
        with place.log_in("for a while") as other:
            assert other.open("/persons") == HTTPStatus.OK
            row = admin.page.get_by_role("row", name="for a while")
            row.get_by_role("combobox").select_option("viewer")
            with admin.page.expect_response(lambda answer: answer.request.method == "POST"):
                row.get_by_role("button", name="Set").click()
            admin.settle()
            other.page.reload()
            other.settle()
            assert other.place() == "/login?next=/persons"
            assert other.faults() == []


def test_the_theme_that_was_chosen_stays(place: Place) -> None:
    with place.visit() as screen:
        screen.open("/login")
        assert not is_dark(screen)
        screen.press("Dark or light")
        assert is_dark(screen)
        screen.open("/login")
        assert is_dark(screen)
        screen.press("Dark or light")
        assert not is_dark(screen)
        screen.show("dark", 1440)
        assert not is_dark(screen), "what the person chose counts more than the machine"
        assert screen.faults() == []


def is_dark(screen: Screen) -> bool:
    colour = str(screen.run("getComputedStyle(document.body).backgroundColor"))
    return max(map(int, re.findall(r"\d+", colour))) < 128


def test_the_keyboard_comes_to_the_content_first(place: Place) -> None:
    with place.visit(ADMIN) as screen:
        screen.open("/persons")
        screen.page.keyboard.press("Tab")
        skip = screen.page.get_by_role("link", name="Skip to the content")
        expect(skip).to_be_focused()
        expect(skip).to_be_in_viewport()
        screen.page.keyboard.press("Enter")
        expect(screen.page.get_by_role("main")).to_be_focused()
        assert screen.faults() == []
