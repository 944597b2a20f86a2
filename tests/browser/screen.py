"""A tab of a browser before the page, with all that goes wrong in it written down."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from playwright.sync_api import BrowserContext, ConsoleMessage, Error, Locator, Page, Request, expect

DESK: Final = 1440  # CSS pixels of a screen on a desk
PHONE: Final = 390
_HEIGHT: Final = 900
_WATCH: Final = """
window.hit = number => console.error(`ran what a peer sent: ${number}`);
document.addEventListener("securitypolicyviolation", event =>
  console.error(`securitypolicyviolation: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""
# What watches sizes is told at the end of a frame: the next one begins after it.
_DRAWN: Final = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
_UNDER_WAY: Final = ".htmx-request"  # what htmx marks while it asks


@dataclass
class Screen:
    """One tab; its elements are found by what people see: role, label, text."""

    page: Page
    address: str
    _faults: list[str] = field(default_factory=list)
    _weights: dict[str, float] = field(default_factory=dict)  # path -> bytes that came over the wire
    _paths: dict[str, str] = field(default_factory=dict)  # id of a request -> its path

    @classmethod
    def of(cls, context: BrowserContext, address: str) -> Screen:
        """Open a tab that keeps nothing it has loaded."""
        context.add_init_script(_WATCH)
        page = context.new_page()
        screen = cls(page, address)
        page.on("console", screen._on_console)
        page.on("pageerror", screen._on_error)
        page.on("request", screen._on_request)
        wire = context.new_cdp_session(page)
        wire.on("Network.requestWillBeSent", screen._on_sent)
        wire.on("Network.loadingFinished", screen._on_finished)
        wire.send("Network.enable")
        wire.send("Network.setCacheDisabled", {"cacheDisabled": True})
        screen.begin()
        return screen

    def begin(self) -> None:
        """Forget what went wrong, and be a light window on a desk."""
        self._faults = []
        self.show("light", DESK)

    def show(self, theme: str, width: int) -> None:
        """Have the machine ask for a theme and the window be so wide, and wait until the page has been drawn so."""
        self.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        self.page.set_viewport_size({"width": width, "height": _HEIGHT})
        self.run(_DRAWN)

    def open(self, path: str) -> int:
        """Go to a page, wait until it is whole, and return its status."""
        self._weights.clear()
        answer = self.page.goto(self.address + path)
        self.settle()
        return answer.status if answer else 0

    def settle(self) -> None:
        """Wait until the page and the parts that it loads by itself are there."""
        self.page.wait_for_load_state()
        expect(self.page.locator(_UNDER_WAY)).to_have_count(0)

    def field(self, label: str) -> Locator:
        """Return the field with this label."""
        return self.page.get_by_label(label, exact=True)

    def choice(self, label: str) -> Locator:
        """Return the list of choices with this label."""
        return self.page.get_by_role("combobox", name=label, exact=True)

    def press(self, button: str) -> None:
        """Press the button with this name, and wait for what it does."""
        self.page.get_by_role("button", name=button, exact=True).click()
        self.settle()

    def follow(self, link: str) -> None:
        """Follow the link with this name."""
        self.page.get_by_role("link", name=link, exact=True).click()
        self.settle()

    def back(self) -> None:
        """Press the browser's Back."""
        self.page.go_back()
        self.settle()

    def text(self) -> str:
        """Return what can be read."""
        return self.page.locator("body").inner_text()

    def place(self) -> str:
        """Return path and query of the address."""
        return self.page.url.removeprefix(self.address)

    def faults(self, *, expected: Collection[HTTPStatus] = ()) -> list[str]:
        """Return all that went wrong since the last call, but answers with an expected status."""
        found, self._faults = self._faults, []
        known = [f"the server responded with a status of {status.value}" for status in expected]
        return [each for each in found if not any(text in each for text in known)]

    def weight(self) -> int:
        """Return the bytes that came over the wire since `open`, with their headers, and without films."""
        return round(sum(size for path, size in self._weights.items() if "/images/" not in path))

    def weights(self) -> str:
        """Return what weighs how much."""
        return ", ".join(f"{path} {size:.0f}" for path, size in self._weights.items())

    def run(self, script: str, argument: object = None) -> Any:
        """Run a script in the page and return its value: the policy of the page does not bind it."""
        return self.page.evaluate(script, argument)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._faults.append(message.text)

    def _on_error(self, error: Error) -> None:
        self._faults.append(f"uncaught: {error.message}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.address}/", "blob:")):
            self._faults.append(f"asks elsewhere: {request.url}")

    def _on_sent(self, event: dict[str, Any]) -> None:
        self._paths[event["requestId"]] = event["request"]["url"].removeprefix(self.address)

    def _on_finished(self, event: dict[str, Any]) -> None:
        path = self._paths.get(event["requestId"], "?")
        self._weights[path] = self._weights.get(path, 0) + event["encodedDataLength"]
