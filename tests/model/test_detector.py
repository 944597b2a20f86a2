"""The detector by itself: what it takes, what it says, and what a bundle must state of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pneumonia_model import opening
from pneumonia_model.bundle import Bundle, BundleError, load_bundle
from pneumonia_model.detector import MOST_REGIONS, OpacityDetector, TorchDetector
from pneumonia_model.errors import BackendError
from pneumonia_model.golden import golden_regions
from pneumonia_model.network import pneumonia_resnet18
from pneumonia_model.opening import open_detector
from pneumonia_model.regions import DETECTOR_WEIGHTS, NO_REGIONS, Regions, detector_threshold, has_detector

from tests.model.detectors import untrained_detector, with_detector
from tests.node import BUNDLE


@pytest.fixture(scope="module")
def network() -> OpacityDetector:
    return untrained_detector()


@pytest.fixture(scope="module")
def films() -> NDArray[np.float32]:
    return np.random.default_rng(1).random((3, 224, 224), dtype=np.float32)


def test_regions_lie_in_the_film_and_the_surest_comes_first(
    network: OpacityDetector, films: NDArray[np.float32]
) -> None:
    for found in TorchDetector(network).detect(films):
        assert 0 < len(found.scores) <= MOST_REGIONS
        assert found.boxes.min() >= 0
        assert found.boxes.max() <= 1
        assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
        assert (np.diff(found.scores) <= 0).all()


def test_what_is_found_in_a_film_does_not_depend_on_what_came_with_it(
    network: OpacityDetector, films: NDArray[np.float32]
) -> None:
    detector = TorchDetector(network)
    together = detector.detect(films)
    alone = [detector.detect(films[index : index + 1])[0] for index in range(len(films))]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.boxes, other.boxes)
        assert np.array_equal(one.scores, other.scores)


def test_inputs_of_another_shape_are_refused(network: OpacityDetector) -> None:
    with pytest.raises(BackendError, match="float32"):
        TorchDetector(network).detect(np.zeros((1, 96, 96), dtype=np.float32))


def test_a_number_that_is_not_finite_is_no_region(films: NDArray[np.float32]) -> None:
    broken = OpacityDetector(96)
    torch.nn.init.constant_(broken.fcos.head.classification_head.cls_logits.bias, float("nan"))
    with pytest.raises(BackendError, match="not finite"):
        TorchDetector(broken).detect(films[:1])


def test_a_film_without_an_opacity_trains_too() -> None:
    losses = OpacityDetector(96).losses(torch.rand(2, 224, 224), [torch.zeros(0, 4), torch.zeros(0, 4)])
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_the_filters_are_the_classifier_s() -> None:
    classifier = pneumonia_resnet18()
    detector = OpacityDetector(96)
    detector.start_from_classifier(classifier.state_dict())
    taken = detector.fcos.backbone.body.state_dict()
    given = classifier.state_dict()
    assert set(given) - set(taken) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(given[name], value) for name, value in taken.items())


def test_a_threshold_keeps_what_reaches_it() -> None:
    regions = Regions(boxes=np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5]], dtype=np.float64), scores=np.array([0.6, 0.3]))
    assert regions.above(0.6).scores.tolist() == [0.6]
    assert len(NO_REGIONS.above(0).boxes) == 0


def test_a_bundle_without_a_detector_has_none() -> None:
    bundle = load_bundle(BUNDLE)
    assert not has_detector(bundle)
    assert open_detector(bundle, "cpu") is None


def test_a_bundle_s_detector_answers_as_recorded(
    tmp_path: Path, network: OpacityDetector, films: NDArray[np.float32]
) -> None:
    bundle = load_bundle(with_detector(tmp_path / "bundle", network))
    assert has_detector(bundle)
    assert detector_threshold(bundle) == 0.3
    assert bundle.digest != load_bundle(BUNDLE).digest
    opened = open_detector(bundle, "cpu")
    assert opened is not None
    assert np.array_equal(opened.detect(films)[0].boxes, TorchDetector(network).detect(films)[0].boxes)


def test_other_weights_than_the_released_ones_never_serve(tmp_path: Path, network: OpacityDetector) -> None:
    golden = golden_regions(TorchDetector(OpacityDetector(96)), load_bundle(BUNDLE).golden_inputs()).tolist()
    bundle = load_bundle(with_detector(tmp_path / "bundle", network, golden=golden))
    with pytest.raises(BundleError, match="golden regions differ"):
        open_detector(bundle, "cpu")


def test_a_changed_byte_of_the_weights_is_noticed(tmp_path: Path, network: OpacityDetector) -> None:
    folder = with_detector(tmp_path / "bundle", network)
    weights = bytearray((folder / DETECTOR_WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (folder / DETECTOR_WEIGHTS).write_bytes(weights)
    with pytest.raises(BundleError, match="sha256"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "another"}, "detector is 'another'"),
        ({"threshold": 0.0}, "threshold is 0"),
        ({"golden": []}, "golden regions are"),
    ],
)
def test_a_section_that_this_version_does_not_expect_is_refused(
    tmp_path: Path, network: OpacityDetector, changes: dict[str, Any], said: str
) -> None:
    bundle = load_bundle(with_detector(tmp_path / "bundle", network, **changes))
    with pytest.raises(BundleError, match=said):
        _open(bundle)


def test_without_pytorch_a_bundle_with_a_detector_is_refused_not_served_without_it(
    tmp_path: Path, network: OpacityDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(with_detector(tmp_path / "bundle", network))
    monkeypatch.setattr(opening, "find_spec", lambda _name: None)
    with pytest.raises(BackendError, match="extra 'gpu'"):
        open_detector(bundle, "cpu")


def _open(bundle: Bundle) -> None:
    open_detector(bundle, "cpu")
    detector_threshold(bundle)
