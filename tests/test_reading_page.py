"""The page on reading a report shows what the program makes, and explains each kind of line."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest

from tests import reading


@pytest.fixture(scope="module")
def example() -> reading.Example:
    return reading.example()


@pytest.mark.needs("dsrdump")
def test_the_page_shows_the_report_as_it_is_made(example: reading.Example) -> None:
    assert reading.shown(reading.PAGE.read_text(encoding="utf-8")) == reading.dump(example.report)


def test_the_picture_is_the_one_that_is_drawn(example: reading.Example) -> None:
    shown = cv2.imread(str(reading.PICTURE), cv2.IMREAD_COLOR)
    assert shown is not None
    difference = np.abs(shown[..., ::-1].astype(int) - example.picture)
    assert difference.mean() < 1  # another processor may move the map by a digit that nobody sees


@pytest.mark.needs("dsrdump")
def test_every_concept_of_a_result_is_explained(example: reading.Example) -> None:
    page = reading.PAGE.read_text(encoding="utf-8")
    explained = page[page.index("| line | what it says |") :]
    concepts = set(re.findall(r':\(,,"([^"]+)"\)', reading.dump(example.report)))
    inside = {"Image Library Group", "Source", "Modality", "Study Date", "Image View", "Imaging Measurement Report"}
    inside |= {
        name for name in concepts if name.startswith(("Pixel Data", "Horizontal", "Vertical", "Device Observer"))
    }
    inside |= {"Language of Content Item and Descendants", "Imaging Measurements", "Finding Site"}
    assert {name for name in concepts - inside if name not in explained} == set()
