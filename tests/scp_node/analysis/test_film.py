"""A person sees in the viewer what the model saw, and the window means what the film's header says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from pneumonia_model.preprocessing import to_display
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from scp_node.analysis.analyse import film_file
from scp_node.analysis.answers import FILM_SIDE, Film, FilmView
from scp_node.analysis.film import film
from scp_node.domain import NotAnalysed, Reason
from tests.scp_node.analysis.films import picture, radiograph, save

DEEP: Final[dict[str, Any]] = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
WINDOW: Final[dict[str, Any]] = {"WindowCenter": "2000", "WindowWidth": "3000"}


def deep(pixels: NDArray[Any] | None = None, **attributes: Any) -> Dataset:
    """Return a film of 12 bits, 96 x 80."""
    values = picture(96, 80, largest=4095) if pixels is None else pixels
    form = {"Rows": values.shape[0], "Columns": values.shape[1], **DEEP, **attributes}
    return radiograph(PixelData=values.astype("<u2").tobytes(), **form)


def shown(image: Dataset, *, full: bool = True) -> Film:
    found = film(image, full=full)
    assert isinstance(found, Film)
    return found


def table(*entries: int, first: int = 0, bits: int = 16) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = list(entries)
    return Sequence([item])


def windowed(film: Film) -> NDArray[np.float64]:
    """Return the greys that a viewer makes of the values with the film's first window."""
    shares = (film.values.astype(float) - film.view.centre) / film.view.width + 0.5
    return np.asarray(255 * np.clip(shares, 0, 1))


def header_window(view: FilmView) -> tuple[float, float]:
    """Return centre and width as PS3.3 C.11.2.1.2.1 counts them, in the units of the header."""
    return view.base + view.step * view.centre + 0.5, abs(view.step) * view.width + 1


CURVE: Final = [round(65535 * (i / 4095) ** 2) for i in range(4096)]
WAYS: Final[dict[str, dict[str, Any]]] = {
    "no window": {},
    "a window": WINDOW,
    "an exact window": {**WINDOW, "VOILUTFunction": "LINEAR_EXACT"},
    "a sigmoid": {**WINDOW, "VOILUTFunction": "SIGMOID"},
    "a window of one value": {"WindowCenter": "2000", "WindowWidth": "1"},
    "inverted values": {"PhotometricInterpretation": "MONOCHROME1", **WINDOW},
    "an inverse shape": {"PresentationLUTShape": "INVERSE"},
    "a rescale": {"RescaleSlope": "0.125", "RescaleIntercept": "-77.5", "WindowCenter": "100", "WindowWidth": "400"},
    "a steep rescale": {"RescaleSlope": "20", "RescaleIntercept": "3", "WindowCenter": "40000", "WindowWidth": "50000"},
    "a negative slope": {"RescaleSlope": "-1", "RescaleIntercept": "4095", **WINDOW},
    "a lookup table": {"VOILUTSequence": table(*CURVE)},
    "a falling lookup table": {"VOILUTSequence": table(*CURVE[::-1])},
    "two lookup tables": {"ModalityLUTSequence": table(*range(4095, -1, -1)), "VOILUTSequence": table(*CURVE)},
    "a modality table alone": {"ModalityLUTSequence": table(*CURVE)},
    "padding": {"PixelPaddingValue": 0, **WINDOW},
    "padding in inverted values": {"PixelPaddingValue": 0, "PhotometricInterpretation": "MONOCHROME1"},
}


@pytest.mark.parametrize("way", WAYS)
def test_at_full_size_the_values_make_exactly_the_picture_that_the_model_gets(way: str) -> None:
    image = deep(**WAYS[way])
    seen = shown(image)
    assert np.array_equal(seen.greys[seen.values], to_display(image))
    assert seen.values.dtype == np.uint16


@pytest.mark.parametrize("way", WAYS)
def test_high_values_are_bright_whatever_way_the_film_is_stored(way: str) -> None:
    seen = shown(deep(**WAYS[way]))
    assert seen.greys[-1] > seen.greys[0]
    assert np.corrcoef(seen.values.ravel(), seen.greys[seen.values].ravel())[0, 1] > 0.5


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_films_of_any_depth_keep_each_of_their_values(bits: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**bits, (80, 70), dtype=np.uint16)
    values[0, :2] = 0, 2**bits - 1
    image = deep(values, BitsStored=bits, HighBit=bits - 1)
    seen = shown(image)
    assert np.array_equal(seen.values, values)
    assert np.array_equal(seen.greys[seen.values], to_display(image))


def test_signed_values_begin_at_the_lowest_one() -> None:
    values = picture(96, 80, largest=4095).astype(np.int16) - 2048
    seen = shown(deep(values.view(np.uint16) & 0x0FFF, PixelRepresentation=1))
    assert np.array_equal(seen.values.astype(int) + values.min(), values)
    assert (seen.view.base, seen.view.step) == (values.min(), 1)


def test_a_film_in_colour_with_equal_channels_is_grey() -> None:
    grey = picture(96, 80).astype(np.uint8)
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    image = radiograph(PixelData=np.dstack([grey] * 3).tobytes(), Rows=96, Columns=80, **colour)
    seen = shown(image)
    assert np.array_equal(seen.greys[seen.values], grey)


@pytest.mark.parametrize("way", ["a window", "inverted values", "a negative slope", "padding"])
def test_the_window_is_that_of_the_header_in_its_own_units(way: str) -> None:
    seen = shown(deep(**WAYS[way]))
    assert seen.view.has_own_view
    assert header_window(seen.view) == pytest.approx((2000, 3000))


@pytest.mark.parametrize("way", ["a window", "an exact window", "inverted values", "a rescale", "a negative slope"])
def test_a_viewer_s_own_window_shows_what_the_film_s_window_does(way: str) -> None:
    seen = shown(deep(**WAYS[way]))
    assert np.abs(windowed(seen) - seen.greys[seen.values]).max() <= 1


def test_a_rescaled_window_is_told_in_rescaled_units() -> None:
    seen = shown(deep(**WAYS["a rescale"]))
    assert header_window(seen.view) == pytest.approx((100, 400))
    assert seen.view.step == pytest.approx(0.125)


def test_the_window_of_a_lookup_table_spans_where_it_is_neither_black_nor_white() -> None:
    entries = [0] * 1000 + [round(i * 65535 / 999) for i in range(1000)] + [65535] * 2096
    seen = shown(deep(VOILUTSequence=table(*entries)))
    black, white = seen.view.centre - seen.view.width / 2, seen.view.centre + seen.view.width / 2
    lowest = seen.view.base
    assert lowest + black == pytest.approx(1000, abs=12)
    assert lowest + white == pytest.approx(2000, abs=12)
    assert seen.view.has_own_view


def test_without_a_window_it_lies_between_percentiles_of_the_film_and_says_so() -> None:
    values = picture(96, 80, largest=4000).astype(np.uint16)
    values[0, :3] = 4095  # a marker of lead
    values[:, :20] = 0  # padding, which is no film
    seen = shown(deep(values, PixelPaddingValue=0))
    inside = np.sort(seen.values[values > 0])
    ends = (seen.view.centre - seen.view.width / 2, seen.view.centre + seen.view.width / 2)
    assert ends == pytest.approx(np.percentile(inside, (1, 99)), abs=2)
    assert not seen.view.has_own_view


def test_padding_is_darker_than_the_darkest_film() -> None:
    values = picture(96, 80, largest=3000).astype(np.uint16) + 500
    values[:, :20] = 4095
    seen = shown(deep(values, PixelPaddingValue=4095, **WINDOW))
    assert np.array_equal(seen.values == 0, values == 4095)


@pytest.mark.parametrize(("size", "shape"), [((2100, 1050), (FILM_SIDE, 1024)), ((600, 2048), (600, FILM_SIDE))])
def test_a_large_film_is_made_smaller_by_averaging_areas_unless_it_is_wanted_whole(
    size: tuple[int, int], shape: tuple[int, int]
) -> None:
    values = picture(*size, largest=4095)
    fit, whole = shown(deep(values), full=False), shown(deep(values))
    assert (fit.values.shape, whole.values.shape) == (shape, size)
    assert (fit.view.rows, fit.view.columns) == size
    assert fit.values.mean() == pytest.approx(whole.values.mean(), rel=1e-3)
    assert fit.values.max() < len(fit.greys)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PixelSpacing": ["0.14", "0.15"]}, ((0.14, 0.15), "PixelSpacing")),
        ({"ImagerPixelSpacing": ["0.2", "0.2"]}, ((0.2, 0.2), "ImagerPixelSpacing")),
        ({"PixelSpacing": ["0", "0"], "ImagerPixelSpacing": ["0.2", "0.2"]}, ((0.2, 0.2), "ImagerPixelSpacing")),
        ({"PixelSpacing": ["1e30", "1e30"]}, (None, "")),
        ({"PixelSpacing": "0.14"}, (None, "")),
        ({"PixelSpacing": ["0.14", "inf"]}, (None, "")),
        ({}, (None, "")),
    ],
)
def test_the_spacing_is_known_or_unknown_and_never_guessed(attributes: dict[str, Any], expected: object) -> None:
    view = shown(deep(**attributes)).view
    assert (view.spacing, view.spacing_from) == expected


def test_a_film_outside_the_intended_use_is_shown_too(tmp_path: Path) -> None:
    assert isinstance(film_file(save(radiograph(ViewPosition="LL"), tmp_path / "lateral.dcm"), full=False), Film)


def test_a_film_of_one_value_is_shown_as_that() -> None:
    seen = shown(deep(np.full((96, 80), 7)))
    assert set(seen.values.ravel()) == {0}
    assert seen.view.width >= 1


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_a_slope_that_makes_values_infinite_leaves_the_greys() -> None:
    image = deep(RescaleSlope="1e308", RescaleIntercept="0", **WINDOW)
    seen = shown(image)
    assert np.array_equal(seen.greys[seen.values], to_display(image))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"PixelData": b"too short."}, Reason.UNREADABLE_PIXELS),
        ({"WindowCenter": "1", "WindowWidth": "-3"}, Reason.DISPLAY_ATTRIBUTES),
        ({"NumberOfFrames": "2"}, Reason.MULTI_FRAME),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.PIXEL_FORM),
    ],
)
def test_a_film_that_cannot_be_read_gives_the_reason_of_the_analysis(
    attributes: dict[str, Any], reason: Reason
) -> None:
    outcome = film(radiograph(**attributes), full=False)
    assert isinstance(outcome, NotAnalysed)
    assert outcome.reason is reason


def test_a_file_that_is_gone_or_no_film_is_said_so(tmp_path: Path) -> None:
    gone = film_file(tmp_path / "gone.dcm", full=False)
    assert gone == NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail="file: FileNotFoundError")
    (tmp_path / "text.dcm").write_text("no film")
    text = film_file(tmp_path / "text.dcm", full=False)
    assert text == NotAnalysed(reason=Reason.UNREADABLE_PIXELS, detail="not readable again")
