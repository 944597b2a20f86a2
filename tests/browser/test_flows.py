"""What people do with the page: find a study, look at its film, answer, send again, take the list along."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Locator, expect

from scp_node.demo.pacs import StoragePacs
from tests.browser.place import ADMIN, HOSTILE_ACCESSION, HOSTILE_NAMES, READER, SLOWEST, VIEWER, Place
from tests.browser.screen import PHONE, Screen
from tests.node import radiograph
from tests.waiting import wait_until

FILM: Final = re.compile(r"^Film of image 1")
WINDOW: Final = re.compile(r"C (-?[\d.]+) W ([\d.]+)")
UNSEEN: Final = re.compile("[\N{RIGHT-TO-LEFT OVERRIDE}\N{POP DIRECTIONAL FORMATTING}]")
ZOOM: Final = re.compile(r"(\d+) %")


def rows(screen: Screen) -> Locator:
    """Return the rows of the list."""
    return screen.page.get_by_role("row").filter(has=screen.page.get_by_role("rowheader"))


def search(screen: Screen, text: str) -> None:
    screen.page.get_by_role("searchbox", name="Search").fill(text)
    screen.press("Show")


def open_study(screen: Screen, place: Place, kind: str) -> None:
    screen.open(f"/studies/{place.films[kind].StudyInstanceUID}")


def picture(canvas: Locator) -> NDArray[np.uint8]:
    decoded = cv2.imdecode(np.frombuffer(canvas.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded.astype(np.uint8)


# The list


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("иванова", "cyrillic"),
        ("МАРИЯ", "cyrillic"),
        ("山田", "japanese"),
        ("やまだ たろう", "japanese"),
        ("yamada", "japanese"),
    ],
)
def test_a_patient_is_found_by_a_name_in_any_script_and_back_leads_to_the_whole_list(
    place: Place, text: str, kind: str
) -> None:
    with place.visit(VIEWER) as screen:
        screen.open("/studies")
        everything = rows(screen).count()
        assert everything >= len(place.films)
        search(screen, text)
        expect(rows(screen)).to_have_count(1)
        expect(rows(screen)).to_contain_text(place.films[kind].PatientID)
        screen.back()
        expect(rows(screen)).to_have_count(everything)
        assert screen.faults() == []


def test_a_filter_is_in_the_address_and_back_takes_it_away(place: Place) -> None:
    with place.visit(VIEWER) as screen:
        screen.open("/studies")
        everything = rows(screen).count()
        screen.page.get_by_text("Filters", exact=True).click()
        screen.choice("Not analysed because").select_option("view")
        expect(screen.page).to_have_url(re.compile("reason=view"))
        expect(rows(screen)).to_have_count(1)
        expect(rows(screen)).to_contain_text(place.films["lateral"].PatientID)
        address = screen.place()
        screen.back()
        expect(rows(screen)).to_have_count(everything)
        screen.open(address)
        expect(rows(screen)).to_have_count(1)
        screen.follow("Clear the filters")
        expect(rows(screen)).to_have_count(everything)
        assert screen.faults() == []


def test_what_a_peer_calls_a_patient_is_text(place: Place) -> None:
    with place.visit(VIEWER) as screen:
        screen.open("/studies")
        for name in HOSTILE_NAMES:
            for part in name.partition("=")[0].split("^"):
                expect(rows(screen).filter(has_text=UNSEEN.sub("", part))).to_have_count(1)
        assert not UNSEEN.search(screen.text()), "what turns the direction of text"
        assert HOSTILE_ACCESSION in screen.text()
        open_study(screen, place, "hostile 1")
        assert "<script>hit(2)</script>" in screen.text()
        assert screen.faults() == []


def test_a_study_that_comes_is_announced_and_moves_no_row(place: Place) -> None:
    with place.visit(VIEWER) as screen:
        screen.open("/studies")
        before = rows(screen).all_inner_texts()
        film = radiograph(40)
        place.node.send(film)
        announced = screen.page.get_by_role("link", name=re.compile(r"^\d+ new$"))
        expect(announced).to_be_visible()
        assert [text.splitlines()[0] for text in rows(screen).all_inner_texts()] == [
            text.splitlines()[0] for text in before
        ]
        announced.click()
        screen.settle()
        expect(rows(screen).first).to_contain_text(film.PatientID)
        assert screen.faults() == []


def test_the_keyboard_goes_through_the_list(place: Place) -> None:
    with place.visit(VIEWER) as screen:
        screen.open("/studies")
        keyboard = screen.page.keyboard
        keyboard.press("/")
        expect(screen.page.get_by_role("searchbox", name="Search")).to_be_focused()
        keyboard.type("PHANTOM-001")
        keyboard.press("Enter")
        expect(rows(screen)).to_have_count(1)
        screen.settle()  # the row is there before the script that moves to it
        keyboard.press("j")
        expect(rows(screen).get_by_role("link")).to_be_focused()
        keyboard.press("Enter")
        expect(screen.page).to_have_url(re.compile(place.films["negative"].StudyInstanceUID))
        screen.settle()
        assert screen.faults() == []


def test_the_list_is_taken_along_as_a_file(place: Place, tmp_path: Path) -> None:
    with place.visit(VIEWER) as screen:
        screen.open("/studies?q=%D0%B8%D0%B2%D0%B0%D0%BD%D0%BE%D0%B2%D0%B0")
        with screen.page.expect_download() as taken:
            screen.page.get_by_role("link", name="CSV", exact=True).click()
        taken.value.save_as(tmp_path / "list.csv")
        lines = (tmp_path / "list.csv").read_text(encoding="utf-8-sig").splitlines()
        assert len(lines) == 2
        assert place.films["cyrillic"].PatientID in lines[1]
        assert screen.faults() == []


# A study


def test_a_film_is_windowed_zoomed_inverted_and_covered_by_its_map(place: Place) -> None:
    with place.visit(VIEWER) as screen:
        open_study(screen, place, "positive")
        film = screen.page.get_by_role("img", name=FILM)
        film.scroll_into_view_if_needed()
        readout = screen.page.get_by_text(WINDOW)
        expect(readout).to_be_visible()
        box = film.bounding_box()
        assert box

        def numbers() -> tuple[float, float, int]:
            text = readout.inner_text()
            window, zoom = WINDOW.search(text), ZOOM.search(text)
            assert window, text
            assert zoom, text
            return float(window[1]), float(window[2]), int(zoom[1])

        at_first, mouse = numbers(), screen.page.mouse
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + 100, y + 50, steps=4)
        mouse.up()
        wait_until(lambda: numbers()[1] > at_first[1] and numbers()[0] != at_first[0], SLOWEST, what="another window")
        mouse.wheel(0, -300)
        wait_until(lambda: numbers()[2] > at_first[2], SLOWEST, what="a larger film")

        button = screen.page.get_by_role("button", name="Invert")
        film.focus()
        screen.page.keyboard.press("i")
        expect(button).to_have_attribute("aria-pressed", "true")
        screen.page.keyboard.press("i")
        expect(button).to_have_attribute("aria-pressed", "false")
        screen.page.keyboard.press("r")
        wait_until(lambda: numbers() == at_first, SLOWEST, what="the first view")

        slider = screen.page.get_by_role("slider", name="Opacity of the activation map")
        slider.fill("0")
        alone = colourful(picture(film))  # the warning on the film has a colour
        slider.fill("100")
        wait_until(lambda: colourful(picture(film)) > alone + 0.005, SLOWEST, what="the colours of the map")
        assert screen.faults() == []


def colourful(shown: NDArray[np.uint8]) -> float:
    """Return the share of pixels that have a colour."""
    return float((np.ptp(shown.astype(int), axis=2) > 12).mean())


def test_a_film_is_shown_on_a_phone_with_its_warning(place: Place) -> None:
    with place.visit(VIEWER) as screen:
        screen.show("dark", PHONE)
        open_study(screen, place, "negative")
        screen.page.get_by_role("img", name=FILM).scroll_into_view_if_needed()
        expect(screen.page.get_by_text(WINDOW)).to_be_visible()
        expect(screen.page.get_by_text("Not for diagnosis", exact=True)).to_be_visible()
        assert screen.faults() == []


def test_a_reader_answers_by_one_key_and_others_see_it(place: Place) -> None:
    with place.visit(READER) as screen:
        open_study(screen, place, "positive")
        agree = screen.page.get_by_role("button", name="Agree a")
        expect(agree).to_have_attribute("aria-pressed", "false")
        screen.page.keyboard.press("a")
        expect(screen.page.get_by_role("status").filter(has_text="Kept")).to_be_visible()
        expect(agree).to_have_attribute("aria-pressed", "true")
        screen.page.keyboard.press("d")
        expect(screen.page.get_by_role("button", name="Disagree d")).to_have_attribute("aria-pressed", "true")
        assert screen.faults() == []
    with place.visit(VIEWER) as screen:
        open_study(screen, place, "positive")
        expect(screen.page.get_by_role("region", name="Feedback")).to_contain_text("reader disagree")
        expect(screen.page.get_by_role("button", name="Agree a")).to_have_count(0)
        assert screen.faults() == []


def test_a_report_is_sent_again_to_a_pacs_that_was_down(place: Place, tmp_path: Path) -> None:
    name = re.compile(r"^Send again: report, version 1, to archive$")
    with place.visit(ADMIN) as screen:
        again = screen.page.get_by_role("button", name=name)

        def is_given_up() -> bool:
            open_study(screen, place, "lateral")
            return again.count() == 1

        wait_until(is_given_up, SLOWEST, what="the archive's report is given up")
        with closing(StoragePacs(tmp_path / "archive", place.absent_port)) as archive:
            again.click()
            screen.settle()
            expect(screen.page.get_by_role("status").first).to_have_text("It waits to be sent to archive again.")
            [(_, report)] = wait_until(archive.new_reports, SLOWEST, what="the report in the archive")
            assert report.StudyInstanceUID == place.films["lateral"].StudyInstanceUID

            row = screen.page.get_by_role("row").filter(has=screen.page.get_by_role("cell", name="archive", exact=True))

            def is_delivered() -> bool:
                open_study(screen, place, "lateral")
                return "delivered" in row.inner_text().lower()

            wait_until(is_delivered, SLOWEST, what="the page says so")
        assert screen.faults() == []


def test_after_logging_out_back_shows_nothing_of_a_study(place: Place) -> None:
    film = place.films["cyrillic"]
    with place.log_in(VIEWER) as screen:
        open_study(screen, place, "cyrillic")
        assert film.PatientID in screen.text()
        screen.press("Log out")
        screen.back()
        screen.page.wait_for_url(re.compile("/login"))
        assert film.PatientID not in screen.page.content()
        assert screen.faults() == []
