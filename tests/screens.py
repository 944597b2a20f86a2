"""`make screens`: the pictures of the web page in `docs/`, from a node of its own and synthetic phantoms."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import expect
from pydicom import Dataset

from tests.browser.place import READER, Place, open_place
from tests.browser.screen import DESK, Screen
from tests.chromium import chromium
from tests.node import radiograph

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
COLOURS: Final = 160  # of the palette
MOST_BYTES: Final = 200_000
NAMES: Final = ("Ada", "Boris", "Chen", "Dalia", "Emil", "Fatima", "Goran", "Hanna", "Ivo", "Jun", "Kalle", "Lena")


def main() -> None:
    """Make both pictures, and say how large they are."""
    with (
        tempfile.TemporaryDirectory(prefix="scp-node-screens-") as folder,
        chromium() as browser,
        open_place(Path(folder), browser, films(), has_archive=False) as place,
    ):
        for file in (DOCS / "web-studies.png", DOCS / "web-study.png"):
            file.write_bytes(picture(place, file.stem))
            sys.stdout.write(f"{file.relative_to(DOCS.parent)} {file.stat().st_size} bytes\n")


def films() -> Mapping[str, Dataset]:
    """Return phantoms whose names say that nobody is meant."""
    made = {}
    for number, name in enumerate(NAMES):
        view = "LL" if number == 7 else ("AP" if number % 3 else "PA")
        film = radiograph(9 + number, opacity=number % 3 == 0, ViewPosition=view, PatientSex="FMMFMFMFMMMF"[number])
        film.PatientName = f"Phantom^{name}"
        film.PatientAge, film.PatientBirthDate = f"{31 + 4 * number:03d}Y", f"{1994 - 4 * number}0601"
        made[name] = film
    return made


def picture(place: Place, name: str) -> bytes:
    """Return a PNG of one page, as a reader sees it in the dark.

    Raises:
        RuntimeError: it is larger than `MOST_BYTES`.
    """
    with place.visit(READER) as screen:
        screen.show("dark", DESK)
        if name == "web-study":
            _open_study(screen, place)
        else:
            screen.open("/studies")
        shown = Image.open(BytesIO(screen.page.screenshot())).convert("RGB")
    packed = BytesIO()
    shown.quantize(COLOURS, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
    if packed.tell() > MOST_BYTES:
        raise RuntimeError(f"{name}: {packed.tell()} bytes")
    return packed.getvalue()


def _open_study(screen: Screen, place: Place) -> None:
    screen.open(f"/studies/{place.films[NAMES[0]].StudyInstanceUID}")
    screen.page.keyboard.press("a")
    expect(screen.page.get_by_role("status").filter(has_text="Kept")).to_be_visible()
    screen.page.get_by_role("slider", name="Opacity of the activation map").fill("100")
    screen.page.evaluate("scrollTo(0, 0)")


if __name__ == "__main__":
    main()
