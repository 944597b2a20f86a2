"""What a radiologist sees of a study in OHIF: the film with the result beside it, and the picture.

SCREENSHOTS=folder keeps what the screen showed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser
from pydicom import Dataset

from scp_node.analysis.analyse import picture_file
from scp_node.analysis.answers import Picture
from scp_node.domain import Finding, Outcome, ReportedImage
from scp_node.report.content.wording import percent, short_comment
from scp_node.report.objects.overlay import build_overlay
from tests import npm, servers
from tests.node import radiograph
from tests.scp_node.report.reports import LATERAL, NEGATIVE, POSITIVE, UNDETERMINED, built, stored, version_of
from tests.servers import Orthanc
from tests.viewer import ohif

pytestmark = [pytest.mark.needs(tool) for tool in ("Orthanc", "orthanc-dicomweb", "chromium")]


@pytest.fixture(scope="module")
def archive() -> Iterator[Orthanc]:
    """An Orthanc with its DICOMweb."""
    with servers.open_folder() as folder, Orthanc(folder, dicomweb=True) as orthanc:
        yield orthanc


@pytest.fixture(scope="module")
def address(archive: Orthanc) -> Iterator[str]:
    """Where OHIF is served before that Orthanc."""
    with ohif.site(npm.required(npm.OHIF), archive.http_port) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium that draws OHIF's pictures."""
    with ohif.browser() as opened:
        yield opened


def saved(image: Dataset, path: Path) -> Path:
    image.save_as(path, enforce_file_format=True)
    return path


def store(archive: Orthanc, seed: int, outcome: Outcome, folder: Path) -> tuple[str, ReportedImage, Path]:
    """Store a film and its report; return the study, the film with its outcome, and the film's file."""
    film = radiograph(seed, opacity=True)
    file = saved(film, folder / "film.dcm")
    image = stored(file, outcome)
    archive.store(file.read_bytes())
    archive.store(built(image).file)
    return film.StudyInstanceUID, image, file


def keep(screen: ohif.Screen, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        screen.save(Path(folder) / f"{name}.png")


OUTCOMES: Final[dict[str, Outcome]] = {
    "positive": POSITIVE,
    "negative": NEGATIVE,
    "undetermined": UNDETERMINED,
    "not analysed": LATERAL,
}


@pytest.mark.parametrize("kind", OUTCOMES)
def test_the_result_stands_beside_the_film(
    archive: Orthanc, address: str, browser: Browser, tmp_path: Path, kind: str
) -> None:
    outcome = OUTCOMES[kind]
    study, _, _ = store(archive, 21 + list(OUTCOMES).index(kind), outcome, tmp_path)
    with ohif.screen(browser, address, study) as screen:
        screen.wait_for_picture()
        texts = [short_comment(outcome)]
        if isinstance(outcome, Finding):
            texts.append(f"Probability: {percent(outcome.probability, *outcome.limits)}")
        screen.open_series("AI PNEUMONIA report")
        shown = screen.wait_for(*texts)
        assert isinstance(outcome, Finding) == ("Probability" in shown)
        screen.wait_for_picture()
        keep(screen, f"report {kind}")
        assert screen.unhandled() == []


def test_the_picture_is_shown_as_it_was_drawn(archive: Orthanc, address: str, browser: Browser, tmp_path: Path) -> None:
    study, image, file = store(archive, 25, POSITIVE, tmp_path)
    display = picture_file(file)
    assert isinstance(display, Picture)
    ramp = np.linspace(-3, 4, 196, dtype="<f4").tobytes()
    seen = replace(image, outcome=replace(POSITIVE, attention=ramp))
    overlay = build_overlay(version_of(seen), image=seen, number=1, display=display.display)
    archive.store(overlay.file)
    with ohif.screen(browser, address, study) as screen:
        screen.wait_for_picture()
        assert not colourful(screen.picture())
        screen.open_series("AI PNEUMONIA overlay")
        screen.wait_until(lambda: colourful(screen.picture()), "the overlay's colours")
        keep(screen, "overlay")
        assert screen.unhandled() == []


def colourful(picture: NDArray[np.uint8]) -> bool:
    return bool((np.ptp(picture.astype(int), axis=2) > 60).mean() > 0.02)
