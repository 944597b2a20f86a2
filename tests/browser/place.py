"""A whole node with its web page, a PACS that is there and one that is not, persons, and studies sent by C-STORE."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, BrowserContext
from pydicom import Dataset

from scp_node.demo.pacs import StoragePacs
from scp_node.domain import Actor
from scp_node.ledger import PersonRole
from scp_node.opening import upgrade_database
from scp_node.web.passwords import hash_password
from tests.browser.screen import Screen
from tests.node import Node, destination, radiograph
from tests.servers import free_port
from tests.waiting import wait_until

PASSWORD: Final = "correct horse battery"  # noqa: S105 - of a test
SLOWEST: Final = 90  # seconds that anything on a page may take
ACTOR: Final = Actor(name="test", address="127.0.0.1")
VIEWER: Final = PersonRole.VIEWER
READER: Final = PersonRole.READER
ADMIN: Final = PersonRole.ADMIN
UNICODE: Final = "ISO_IR 192"  # PS3.3 C.12.1.1.2: UTF-8

PATIENCE: Final = 300.0  # seconds: five processes start, on a machine that may be busy with other tests

# What a peer may call a patient. "=" parts the three representations of a name (PS3.5 6.2.1.2).
HOSTILE_NAMES: Final = (
    "<img src=x onerror=window.hit(1)>",
    "\"'><script>hit(2)</script>^</td></table>",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.evil\N{POP DIRECTIONAL FORMATTING}^{{ 7*7 }}${7*7}",
    "&lt;b&gt;^<svg/onload",
    "W" * 64,
)
HOSTILE_ACCESSION: Final = "<b>&\"'</b>%0a"
HOSTILE_DESCRIPTION: Final = "</td></tr></table><iframe src='//198.51.100.1'></iframe>"
CYRILLIC: Final = "Иванова^Мария"
JAPANESE: Final = "Yamada^Tarou=山田^太郎=やまだ^たろう"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """All of it."""

    node: Node
    pacs: StoragePacs
    absent_port: int  # of the destination "archive", where nothing listens
    browser: Browser
    tabs: dict[str, Screen] = field(default_factory=dict)  # of the persons who are logged in
    films: Mapping[str, Dataset]  # what is special about it -> the film that was sent

    @property
    def address(self) -> str:
        """Return where the page is."""
        return f"http://127.0.0.1:{self.node.settings.web.port}"

    @contextmanager
    def visit(self, name: str = "") -> Iterator[Screen]:
        """Show the tab of a person, who stays logged in; without a name, a browser that has never been anywhere."""
        if name:
            if name not in self.tabs:
                self.tabs[name] = self._logged_in(name)
            screen = self.tabs[name]
            screen.begin()
            yield screen
        else:
            with self._new_browser() as context:
                yield Screen.of(context, self.address)

    @contextmanager
    def log_in(self, name: str) -> Iterator[Screen]:
        """Open a browser that has never been anywhere, and log a person in there."""
        screen = self._logged_in(name)
        with screen.page.context:
            yield screen

    def _logged_in(self, name: str) -> Screen:
        context = self._new_browser()
        token = self.node.ledger.people.make_link(name, lifetime=timedelta(minutes=5))
        answer = context.request.post(f"{self.address}/login/link", form={"token": token}, max_redirects=0)
        assert answer.status == HTTPStatus.SEE_OTHER, answer.text()
        return Screen.of(context, self.address)

    def _new_browser(self) -> BrowserContext:
        context = self.browser.new_context(timezone_id="Europe/Berlin", locale="en-GB")
        context.set_default_timeout(1_000 * SLOWEST)
        return context


@contextmanager
def open_place(
    folder: Path, browser: Browser, films: Mapping[str, Dataset], *, has_archive: bool = True
) -> Iterator[Place]:
    """Start everything, send the films, each of a study of its own, and wait until each is read and reported.

    With an archive, there is a second destination, where nothing listens.
    """
    with ExitStack() as stack:
        pacs = StoragePacs(folder / "pacs")
        stack.callback(pacs.close)
        absent = free_port()
        changes = {
            "web": {"enabled": True, "port": free_port(), "time_zone": "Europe/Berlin"},
            "delivery": {"retry_for_hours": 1 / 3_600},  # what the archive does not take is soon given up
            "work": {"lease_seconds": 60},  # nothing dies here, and a busy machine is slow
            "inference": {"backend": "onnxruntime"},  # to look for CUDA takes seconds
            "destinations": [
                destination(pacs.port),
                *([destination(absent, "archive", "ARCHIVE")] if has_archive else []),
            ],
        }
        node = Node(folder, changes)
        stack.callback(node.end)
        _add_persons(node)
        node.start(wait=False)
        wait_until(node.is_listening, PATIENCE, what="the node listens")
        assert not films or set(node.send(*films.values())) == {0x0000}
        place = Place(node=node, pacs=pacs, absent_port=absent, browser=browser, films=films)
        wait_until(
            lambda: _is_ready(node.settings.web.port), PATIENCE, what=f"the page answers; log:\n{node.log[-3000:]}"
        )
        reported: set[str] = set()

        def all_reported() -> bool:
            reported.update(report.StudyInstanceUID for _, report in pacs.new_reports())
            return len(reported) == len(films)

        wait_until(all_reported, PATIENCE, what=f"all reports; log:\n{node.log[-3000:]}")
        yield place
        for tab in place.tabs.values():
            tab.page.context.close()


def _add_persons(node: Node) -> None:
    node.settings.node.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    upgrade_database(node.settings)
    hashed = hash_password(PASSWORD)
    for role in PersonRole:
        node.ledger.people.add(str(role), role, actor=ACTOR, password_hash=hashed)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with closing(connection), suppress(OSError):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    return False


def films_of_all_kinds() -> Mapping[str, Dataset]:
    """Return one film of each kind, each in a study of its own."""
    films = {
        "negative": radiograph(1),
        "positive": radiograph(2, opacity=True),
        "lateral": radiograph(3, ViewPosition="LL"),
        "cyrillic": _named(4, CYRILLIC),
        "japanese": _named(5, JAPANESE),
    }
    for number, name in enumerate(HOSTILE_NAMES):
        films[f"hostile {number}"] = _named(10 + number, name)
    films["hostile 0"].AccessionNumber = HOSTILE_ACCESSION
    films["hostile 0"].StudyDescription = HOSTILE_DESCRIPTION
    return films


def _named(seed: int, name: str) -> Dataset:
    film = radiograph(seed, opacity=bool(seed % 2), SpecificCharacterSet=UNICODE)
    film.PatientName = name
    return film
