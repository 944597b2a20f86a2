"""The overlay's pixels: a film with its class activation map in colour, and what the report says of it around it.

All in 8 bits and tables of 256 values: drawing costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from scp_node.domain import Region
from scp_node.report.content.attention import CONTOUR

LONG_SIDE: Final = 1024  # pixels of the film in the picture
# logits: one scale for all films and models, so that pictures can be compared
LOWEST: Final = -1.0
HIGHEST: Final = 4.0
SMOOTHED: Final = 0.75  # pixels that a line may leave an outline by; from pixel to pixel it takes six times as long

_STRONGEST: Final = 0.6  # share of colour where the map is highest: the film stays visible
_NARROWEST: Final = 880  # pixels: room for text beside a slim film
_BAR_WIDTH: Final = 104
_MARGIN: Final = 16
_FONT: Final = cv2.FONT_HERSHEY_DUPLEX
_WHITE: Final = (255, 255, 255)
_YELLOW: Final = (255, 214, 0)
_CYAN: Final = (0, 229, 255)
_BLACK: Final = (0, 0, 0)

Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph: wrapped to the picture's width, never cut."""

    words: str  # ASCII
    scale: float = 0.62  # of OpenCV's font: capital letters are about 22 pixels high at 1
    colour: Colour = _WHITE


def heading(words: str) -> Text:
    """Return the first line, which people read from afar."""
    return Text(words, 1.25)


def warning(words: str) -> Text:
    """Return a line that nobody may overlook."""
    return Text(words, 0.85, _YELLOW)


def draw(
    display: Pixels,
    attention: NDArray[np.float32],
    regions: Sequence[Region],
    *,
    above: Sequence[Text],
    below: Sequence[Text],
) -> Pixels:
    """Return the picture, shape (rows, columns, 3) in RGB, both sides even.

    Args:
        display: the film, shape (rows, columns), air dark.
        attention: class activation map in logit units; its places cover the whole film.
        regions: boxes to draw.
        above: text over the film.
        below: text under it.
    """
    film = _resized(display)
    rows, columns = film.shape
    coloured = _coloured(film, attention, regions)
    width = (max(columns + _BAR_WIDTH, _NARROWEST) + 1) // 2 * 2
    head, foot = _band(above, width), _band(below, width)
    picture = np.zeros((len(head) + rows + len(foot), width, 3), np.uint8)
    picture[: len(head)] = head
    picture[len(head) + rows :] = foot
    left = (width - columns - _BAR_WIDTH) // 2
    picture[len(head) : len(head) + rows, left : left + columns] = coloured
    _draw_bar(picture[len(head) : len(head) + rows, left + columns : left + columns + _BAR_WIDTH])
    return picture if len(picture) % 2 == 0 else np.vstack([picture, np.zeros((1, width, 3), np.uint8)])


def _resized(display: Pixels) -> Pixels:
    rows, columns = display.shape
    scale = LONG_SIDE / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    if (columns, rows) == size:
        return display
    return _pixels(cv2.resize(display, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))


def _coloured(film: Pixels, attention: NDArray[np.float32], regions: Sequence[Region]) -> Pixels:
    rows, columns = film.shape
    size = (columns, rows)
    levels = np.clip((attention - LOWEST) / (HIGHEST - LOWEST) * 255, 0, 255).round().astype(np.uint8)
    smooth = cv2.resize(levels, size, interpolation=cv2.INTER_LINEAR)  # no cubic: it would overshoot what was computed
    colours, rest = _tables()
    grey = cv2.multiply(film, cv2.LUT(smooth, rest), scale=1 / 255)
    # a table for each colour: OpenCV looks one up several times as fast as three at once
    picture = cv2.merge([cv2.add(grey, cv2.LUT(smooth, added)) for added in colours])
    beyond = (cv2.resize(attention, size, interpolation=cv2.INTER_LINEAR) > CONTOUR).astype(np.uint8)
    exact, _ = cv2.findContours(beyond, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    outlines = [cv2.approxPolyDP(each, SMOOTHED, closed=True) for each in exact]
    cv2.drawContours(picture, outlines, -1, _BLACK, 4, cv2.LINE_AA)
    cv2.drawContours(picture, outlines, -1, _WHITE, 2, cv2.LINE_AA)
    for region in regions:
        corners = (
            (round(region.left * columns), round(region.top * rows)),
            (round(region.right * columns) - 1, round(region.bottom * rows) - 1),
        )
        cv2.rectangle(picture, *corners, _BLACK, 5, cv2.LINE_AA)
        cv2.rectangle(picture, *corners, _CYAN, 2, cv2.LINE_AA)
    return _pixels(picture)


@cache
def _tables() -> tuple[Pixels, Pixels]:
    """Return for each level the colour it adds, shape (3, 1, 256), and the share of the film it leaves, of 255."""
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 256)
    share = np.linspace(0, _STRONGEST, 256)
    colours = cv2.applyColorMap(ramp, cv2.COLORMAP_PLASMA)[..., ::-1]
    added = (colours * share[None, :, None]).round().astype(np.uint8)
    return np.ascontiguousarray(added.transpose(2, 0, 1)), ((1 - share) * 255).round().astype(np.uint8).reshape(1, 256)


def _draw_bar(area: Pixels) -> None:
    """Draw the colours with their numbers, as they look on a black film and beside it a white one."""
    rows = len(area)
    top, bottom, left, width = 60, rows - 30, 14, 26
    ramp = np.linspace(255, 0, bottom - top).round().astype(np.uint8)
    colours, rest = _tables()
    for offset, grey in ((0, 0), (width // 2, 255)):
        shown = colours[:, 0, ramp].T.astype(np.uint16) + (grey * rest[0][ramp].astype(np.uint16) // 255)[:, None]
        area[top:bottom, left + offset : left + offset + width // 2] = np.minimum(shown, 255)[:, None, :]
    _write(area, "logit", (left, 40), Text("", 0.6))
    for logit in range(int(LOWEST), int(HIGHEST) + 1):
        row = round(bottom - (logit - LOWEST) / (HIGHEST - LOWEST) * (bottom - top))
        cv2.line(area, (left, row), (left + width + 5, row), _WHITE, 2 if logit == CONTOUR else 1)
        _write(area, f"{logit:+d}" if logit else "0", (left + width + 12, row + 7), Text("", 0.6))


def _band(paragraphs: Sequence[Text], width: int) -> Pixels:
    lines = [(line, text) for text in paragraphs for line in _wrapped(text, width - 2 * _MARGIN)]
    steps = [round(36 * text.scale) + 6 for _, text in lines]
    band = np.zeros((sum(steps) + _MARGIN, width, 3), np.uint8)
    row = _MARGIN // 2
    for (line, text), step in zip(lines, steps, strict=True):
        row += step
        _write(band, line, (_MARGIN, row - round(10 * text.scale)), text)
    return band


def _wrapped(text: Text, width: int) -> list[str]:
    """Return the words in lines that fit; a word that is too long for a line is broken, not cut."""
    lines = [""]
    for word in text.words.split():
        rest = word
        joined = f"{lines[-1]} {rest}".strip()
        if _width(joined, text) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        while _width(rest, text) > width:
            fitting = next(n for n in range(len(rest) - 1, 0, -1) if n == 1 or _width(rest[:n], text) <= width)
            lines[-1:] = [rest[:fitting], ""]
            rest = rest[fitting:]
        lines[-1] = rest
    return [line for line in lines if line]


def _width(line: str, text: Text) -> int:
    return int(cv2.getTextSize(line, _FONT, text.scale, 1)[0][0])


def _write(area: Pixels, line: str, place: tuple[int, int], text: Text) -> None:
    cv2.putText(area, line, place, _FONT, text.scale, text.colour, 1, cv2.LINE_AA)


def _pixels(picture: MatLike) -> Pixels:
    return picture.astype(np.uint8, copy=False)
