"""OHIF before an Orthanc, in a headless Chromium: what a radiologist's screen shows of a study."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser, Locator, Page

from tests.chromium import chromium
from tests.waiting import wait_until

WATCH: Final = """
window.unhandled = [];
window.addEventListener('unhandledrejection', event => window.unhandled.push(String(event.reason)));
localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']));
"""
HAS_WEBGL: Final = "document.createElement('canvas').getContext('webgl2') !== null"
VIEWPORT: Final = "canvas.cornerstone-canvas"
THUMBNAIL: Final = "[data-cy^='study-browser-thumbnail']:visible"  # with a picture, and without one
WIDTH: Final = 1600  # CSS pixels
HEIGHT: Final = 900
SOURCE: Final = {
    "friendlyName": "Orthanc",
    "name": "orthanc",
    "qidoRoot": "/dicom-web",
    "wadoRoot": "/dicom-web",
    "wadoUriRoot": "/wado",
    "qidoSupportsIncludeField": False,
    "supportsFuzzyMatching": False,
    "supportsWildcard": True,
    "imageRendering": "wadors",
    "thumbnailRendering": "wadors",
    "enableStudyLazyLoad": True,
    "bulkDataURI": {"enabled": True},
}
CONFIG: Final = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "investigationalUseDialog": {"option": "never"},
    "showCPUFallbackMessage": False,
    "showLoadingIndicator": True,
    "strictZSpacingForVolumeViewport": True,
    "maxNumberOfWebWorkers": 1,
    "defaultDataSourceName": "dicomweb",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "dicomweb",
            "configuration": SOURCE,
        }
    ],
}


@contextlib.contextmanager
def site(pages: Path, orthanc_port: int) -> Iterator[str]:
    """Serve `pages`, with Orthanc's DICOMweb at /dicom-web, and give the address."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(pages))

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/dicom-web"):
                self._forward()
            elif path == "/app-config.js":
                self._answer(f"window.config = {json.dumps(CONFIG)};".encode(), "text/javascript")
            elif not (pages / path.lstrip("/")).is_file():
                self._answer((pages / "index.html").read_bytes(), "text/html")
            else:
                super().do_GET()

        def _forward(self) -> None:
            orthanc = http.client.HTTPConnection("127.0.0.1", orthanc_port, timeout=20)
            with contextlib.closing(orthanc):
                orthanc.request("GET", self.path, headers={"Accept": self.headers.get("Accept", "*/*")})
                answer = orthanc.getresponse()
                body = answer.read()
            self._answer(body, answer.headers["Content-Type"] or "text/plain", answer.status)

        def _answer(self, body: bytes, kind: str, status: int = HTTPStatus.OK) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def end_headers(self) -> None:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep still."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Open a Chromium that draws by the processor."""
    with chromium("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader") as opened:
        with opened.new_page() as page:
            # without WebGL, which the first moments of a busy machine may not give, OHIF draws no annotations
            wait_until(lambda: page.evaluate(HAS_WEBGL), 30, what="WebGL")
        yield opened


@contextlib.contextmanager
def screen(opened: Browser, address: str, study_uid: str) -> Iterator[Screen]:
    """Show one study to a browser that has never been anywhere."""
    with opened.new_context(viewport={"width": WIDTH, "height": HEIGHT}) as context:
        context.add_init_script(WATCH)
        yield Screen(context.new_page(), address, study_uid)


class Screen:
    """One study, opened."""

    def __init__(self, page: Page, address: str, study_uid: str) -> None:
        """Open the study and wait for the list of its series."""
        self._page = page
        page.goto(f"{address}/viewer?StudyInstanceUIDs={study_uid}")
        self.wait_until(self._thumbnails, "series of the study")

    def open_series(self, name: str) -> None:
        """Show the series whose description has `name` in it, as a double click on it does."""
        [found] = [each for each in self._thumbnails() if name in (each.text_content() or "")]
        found.dblclick()

    def wait_for(self, *texts: str) -> str:
        """Return all that can be read on the screen, once all of `texts` can be.

        A busy machine lets OHIF paint a film and not what is drawn on it, until it paints again: the window is resized.
        """
        for height in (HEIGHT - 10, HEIGHT, HEIGHT - 10, HEIGHT):
            with contextlib.suppress(AssertionError):
                return str(wait_until(lambda: self._all(texts), 5))
            self._page.set_viewport_size({"width": WIDTH, "height": height})
        return str(self.wait_until(lambda: self._all(texts), f"{texts}; there is:\n{self.text()}"))

    def text(self) -> str:
        """Return all that can be read on the screen, also what is drawn as SVG."""
        return str(self._page.evaluate("document.body.textContent"))

    def picture(self) -> NDArray[np.uint8]:
        """Return the viewport, shape (rows, columns, 3)."""
        shot = self._page.locator(VIEWPORT).first.screenshot()
        decoded = cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        return decoded.astype(np.uint8)

    def wait_for_picture(self) -> NDArray[np.uint8]:
        """Return the viewport once it is not black."""
        found: list[NDArray[np.uint8]] = self.wait_until(self._lit, "a picture in the viewport")
        return found[0]

    def unhandled(self) -> list[str]:
        """Return the promises that the page lost sight of."""
        return list(self._page.evaluate("window.unhandled"))

    def save(self, path: Path) -> None:
        """Write a screenshot."""
        self._page.screenshot(path=path)

    def _lit(self) -> list[NDArray[np.uint8]]:
        if not self._page.locator(VIEWPORT).count():
            return []
        picture = self.picture()
        return [picture] if (picture.max(axis=2) > 40).mean() > 0.1 else []

    def _all(self, texts: tuple[str, ...]) -> str:
        shown = self.text()
        return shown if all(text in shown for text in texts) else ""

    def _thumbnails(self) -> list[Locator]:
        return self._page.locator(THUMBNAIL).all()

    def wait_until(self, condition: Callable[[], Any], what: str) -> Any:
        """Return the first true value of `condition`."""
        return wait_until(condition, 40, what=what)
