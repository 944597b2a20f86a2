"""What a person sees and does with a film in a browser: the system's Chromium before a page on a socket."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, ConsoleMessage, FloatRect, Page
from pneumonia_model.preprocessing import to_display

from scp_node.ledger import PersonRole
from scp_node.settings import Settings
from scp_node.web.application import create_application
from scp_node.web.server import Server
from scp_node.web.site import Site
from tests.chromium import chromium
from tests.scp_node.analysis.films import picture
from tests.scp_node.ledger_node import MODEL, Node, ledger_engine
from tests.scp_node.web.site import TESTER
from tests.scp_node.web.studies import STUDY, Archive

pytestmark = pytest.mark.needs("chromium")

BROKEN: Final = f"{STUDY}.2"
LARGE: Final = f"{STUDY}.3"
WINDOW: Final[dict[str, Any]] = {"WindowCenter": "140", "WindowWidth": "200"}
_PATIENCE_MS: Final = 60_000  # where many tests share the processors
_FAULTS: Final = """
document.addEventListener('securitypolicyviolation', (event) => console.error('CSP ' + event.violatedDirective));
"""
_ANEW: Final = """() => {
  const viewer = document.querySelector('[data-film]').viewer;
  viewer.shown = { map: true, regions: true };
  viewer.slider.value = 50;
  viewer.reset();
}"""
_CORNER: Final = "() => { const it = document.querySelector('[data-film]').viewer; return [it.x, it.y]; }"
_PICTURE: Final = "() => document.querySelector('canvas').toDataURL('image/png').split(',')[1]"


@dataclass
class Viewer:
    """The first film of a page, and what the browser complained of."""

    page: Page
    faults: list[str] = field(default_factory=list)

    def open(self, address: str) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.add_init_script(_FAULTS)
        self.page.goto(address, wait_until="domcontentloaded")

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.faults.append(message.text)

    def ready(self) -> Viewer:
        self.page.wait_for_selector("[data-ready]")
        return self.settled()

    def settled(self) -> Viewer:
        """Wait until the last change is drawn."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self

    @property
    def readout(self) -> str:
        self.settled()
        return self.page.locator("[data-readout]").first.inner_text()

    @property
    def zoom(self) -> int:
        found = re.search(r"(\d+) %", self.readout)
        assert found
        return int(found[1])

    @property
    def window(self) -> tuple[float, float]:
        found = re.match(r"C (-?[\d.]+) W ([\d.]+)", self.readout)
        assert found
        return float(found[1]), float(found[2])

    @property
    def box(self) -> FloatRect:
        found = self.page.locator("canvas").first.bounding_box()
        assert found
        return found

    @property
    def middle(self) -> tuple[float, float]:
        return self.box["x"] + self.box["width"] / 2, self.box["y"] + self.box["height"] / 2

    def pixels(self) -> NDArray[np.uint8]:
        """Return the canvas, shape (rows, columns, 3)."""
        self.settled()
        octets = np.frombuffer(base64.b64decode(self.page.evaluate(_PICTURE)), np.uint8)
        seen = cv2.imdecode(octets, cv2.IMREAD_COLOR_RGB)
        assert seen is not None
        return seen.astype(np.uint8, copy=False)

    def do(self, action: str) -> Viewer:
        self.page.locator(f"[data-do={action}]").first.click()
        return self.settled()

    def press(self, key: str) -> Viewer:
        self.page.locator("canvas").first.focus()
        self.page.keyboard.press(key)
        return self.settled()

    def pressed(self, action: str) -> str | None:
        return self.page.locator(f"[data-do={action}]").first.get_attribute("aria-pressed")

    def drag(self, dx: float, dy: float, *, button: str = "left") -> Viewer:
        x, y = self.middle
        self.page.mouse.move(x, y)
        self.page.mouse.down(button=button)  # type: ignore[arg-type] # a literal
        self.page.mouse.move(x + dx, y + dy, steps=4)
        self.page.mouse.up(button=button)  # type: ignore[arg-type]
        return self.settled()


@dataclass(frozen=True)
class Place:
    """A served page, and a token that is logged in there."""

    address: str
    token: str
    archive: Archive


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A page with an analysed film, one that cannot be read, and one of more than 2,048 rows."""
    folder = tmp_path_factory.mktemp("place")
    with ledger_engine(folder / "ledger.sqlite3") as engine, socket.socket() as listening:
        node = Node(engine)
        archive = Archive(node, folder / "var")
        archive.receive(archive.film(ImagerPixelSpacing=["0.7", "0.7"], **WINDOW))
        large = np.asarray(picture(2100, 600), np.uint8)
        archive.receive(archive.film(study=LARGE, PixelData=large.tobytes(), Rows=2100, Columns=600))
        archive.receive(archive.film(study=BROKEN, WindowCenter="1", WindowWidth="-3"))
        archive.analyse()
        settings = Settings.model_validate({"node": {"data_dir": str(folder / "var")}})
        people = node.ledger.people
        people.add("ada", PersonRole.VIEWER, actor=TESTER)
        token = people.log_in("ada", address="127.0.0.1", lifetime=timedelta(hours=1))
        model = replace(MODEL, status="demonstration")
        site = Site(settings=settings, ledger=node.ledger, model=model, reference=None)
        server = Server(create_application(site), settings.web)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server.start(listening)
        try:
            yield Place(f"http://127.0.0.1:{listening.getsockname()[1]}", token, archive)
        finally:
            server.stop(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of this module."""
    with chromium() as opened:
        yield opened


def visit(browser: Browser, place: Place, study: str = STUDY, *, width: int = 1200, touch: bool = False) -> Viewer:
    context = browser.new_context(viewport={"width": width, "height": 900}, has_touch=touch)
    context.add_cookies([{"name": "scp-node", "value": place.token, "url": place.address}])
    context.set_default_timeout(_PATIENCE_MS)
    viewer = Viewer(context.new_page())
    viewer.open(f"{place.address}/studies/{study}")
    return viewer


@pytest.fixture(scope="module")
def opened(browser: Browser, place: Place) -> Iterator[Viewer]:
    """The page of the analysed film; nothing in it may break the policy or write an error."""
    viewer = visit(browser, place).ready()
    yield viewer
    assert viewer.faults == []
    viewer.page.context.close()


@pytest.fixture
def viewer(opened: Viewer) -> Viewer:
    """The page as it was first shown."""
    opened.page.evaluate(_ANEW)
    return opened.settled()


def test_at_one_to_one_the_screen_shows_exactly_what_the_model_gets(viewer: Viewer, place: Place) -> None:
    viewer.do("one-to-one").do("map").do("regions")
    assert "100 %" in viewer.readout
    seen, expected = viewer.pixels(), to_display(place.archive.film(**WINDOW))
    assert (seen[..., 0] == seen[..., 1]).all()
    left, top = viewer.page.evaluate(_CORNER)
    shown = seen[max(top, 0) : top + 512, left : left + 512, 0]
    assert np.array_equal(shown, expected[max(-top, 0) :][: len(shown)])


def test_a_drag_changes_the_window_and_reset_brings_it_back(viewer: Viewer) -> None:
    assert viewer.window == (140, 200)
    assert "the film's own view" in viewer.readout
    viewer.drag(60, 40)
    centre, width = viewer.window
    assert centre > 140
    assert width > 200
    assert "own view" not in viewer.readout
    assert viewer.pressed("analysed") == "false"
    viewer.press("r")
    assert (viewer.window, viewer.pressed("analysed")) == ((140, 200), "true")


def test_the_wheel_zooms_where_the_mouse_is_and_a_double_click_fits(viewer: Viewer) -> None:
    fit, before = viewer.zoom, viewer.pixels()
    viewer.page.mouse.move(*viewer.middle)
    viewer.page.mouse.wheel(0, -400)
    assert viewer.zoom > fit
    viewer.page.mouse.dblclick(*viewer.middle)
    assert viewer.zoom == fit
    assert np.array_equal(viewer.pixels(), before)


@pytest.mark.parametrize("way", ["middle", "shift"])
def test_the_film_is_moved_by_the_middle_button_or_with_shift(viewer: Viewer, way: str) -> None:
    window, before = viewer.window, viewer.pixels()
    if way == "shift":
        viewer.page.keyboard.down("Shift")
    viewer.drag(0, -30, button="middle" if way == "middle" else "left")
    viewer.page.keyboard.up("Shift")
    assert viewer.window == window
    moved = viewer.pixels()
    column = before.shape[1] // 2
    assert np.array_equal(moved[100:300, column], before[130:330, column])


def test_every_tool_has_a_key_and_says_whether_it_is_on(viewer: Viewer) -> None:
    plain = viewer.pixels()
    viewer.press("i")
    assert viewer.pressed("invert") == "true"
    assert "inverted" in viewer.readout
    assert viewer.press("i").pressed("invert") == "false"
    assert np.array_equal(viewer.pixels(), plain)
    fit = viewer.zoom
    assert viewer.press("+").zoom > fit
    assert viewer.press("-").press("-").zoom < fit
    assert viewer.press("1").zoom == 100
    assert viewer.press("0").zoom == fit
    assert viewer.press("g").pressed("analysed") == "false"
    centre, width = viewer.window
    assert viewer.press("ArrowRight").window[1] > width
    assert viewer.press("ArrowDown").window[0] > centre


def test_map_and_regions_lie_over_the_film_until_they_are_put_away(viewer: Viewer) -> None:
    def coloured() -> int:
        return int((np.ptp(viewer.pixels().astype(int), axis=2) > 8).sum())

    both = coloured()
    viewer.press("m")
    regions = coloured()
    assert (viewer.pressed("map"), viewer.pressed("regions")) == ("false", "true")
    viewer.press("b")
    assert (coloured(), viewer.pressed("regions")) == (0, "false")
    assert both > regions > 0
    viewer.press("m")
    viewer.page.locator("[data-opacity]").fill("0")
    assert coloured() == 0
    viewer.page.locator("[data-opacity]").fill("100")
    assert coloured() > 0


def test_a_large_film_is_fetched_whole_when_it_is_wanted_one_to_one(browser: Browser, place: Place) -> None:
    viewer = visit(browser, place, LARGE).ready()
    asked: list[str] = []
    viewer.page.on("request", lambda request: asked.append(request.url))
    with viewer.page.expect_response(re.compile("size=full")):
        viewer.do("one-to-one")
    viewer.page.wait_for_function("() => !document.querySelector('[data-readout]').textContent.includes('loading')")
    assert viewer.page.evaluate("() => document.querySelector('[data-film]').viewer.values.length") == 2100 * 600
    assert viewer.zoom == 100
    viewer.do("fit").do("one-to-one")
    assert len([url for url in asked if "size=full" in url]) == 1
    viewer.page.context.close()


def test_a_film_that_cannot_be_read_says_why_in_its_place(browser: Browser, place: Place) -> None:
    viewer = visit(browser, place, BROKEN)
    told = viewer.page.locator("[data-message]")
    told.filter(has_text="display attributes (rescale, window, lookup table, padding) are invalid").wait_for()
    assert told.is_visible()
    assert viewer.page.locator("[data-do=invert]").is_disabled()
    viewer.page.context.close()


def test_one_finger_windows_and_two_zoom(browser: Browser, place: Place) -> None:
    viewer = visit(browser, place, width=390, touch=True).ready()
    assert viewer.page.evaluate("() => document.documentElement.scrollWidth") == 390
    viewer.page.locator("canvas").first.scroll_into_view_if_needed()
    session = viewer.page.context.new_cdp_session(viewer.page)
    x, y = viewer.middle

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": px, "y": py, "id": number} for number, (px, py) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    before, fit = viewer.window, viewer.zoom
    touch("touchStart", (x, y))
    for step in range(1, 6):
        touch("touchMove", (x + 8 * step, y + 8 * step))
    touch("touchEnd")
    after = viewer.window
    assert after[0] > before[0]
    assert after[1] > before[1]
    touch("touchStart", (x - 20, y), (x + 20, y))
    for step in range(1, 6):
        touch("touchMove", (x - 20 - 10 * step, y), (x + 20 + 10 * step, y))
    touch("touchEnd")
    assert viewer.zoom > 2 * fit
    assert viewer.window == after
    assert viewer.faults == []
    viewer.page.context.close()
