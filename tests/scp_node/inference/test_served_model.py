"""The model as the node serves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pneumonia_model.regions import Regions

from scp_node.domain import Region
from scp_node.inference.identity import identify
from scp_node.inference.served_model import ServedDetector, ServedModel
from scp_node.settings import InferenceSettings
from tests.model.detectors import untrained_detector, with_detector
from tests.node import BUNDLE


def test_opening_the_model_checks_its_golden_answers() -> None:
    model = ServedModel.open(InferenceSettings(bundle=BUNDLE, backend="onnxruntime"))
    assert (model.backend, model.device) == ("onnxruntime", "cpu")
    assert model.identity.digest.startswith("sha256:")
    assert 0 < model.probability(0.0) < 1


def test_the_shipped_bundle_has_no_detector_and_says_so() -> None:
    model = ServedModel.open(InferenceSettings(bundle=BUNDLE, backend="onnxruntime"))
    assert model.detector is None
    assert model.identity.region_threshold is None


class Detector:
    """Finds the same in every film: two boxes, and one without area."""

    def detect(self, inputs: NDArray[np.float32]) -> list[Regions]:
        boxes = [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.9], [0.6, 0.1, 0.9, 0.8]]
        return [Regions(boxes=np.array(boxes), scores=np.array([0.8, 0.7, 0.2999])) for _ in inputs]


def test_regions_are_those_that_reach_the_threshold_and_have_an_area() -> None:
    films = np.zeros((2, 224, 224), np.float32)
    first = Region(left=0.1, top=0.2, right=0.3, bottom=0.4, score=0.8)
    second = Region(left=0.6, top=0.1, right=0.9, bottom=0.8, score=0.2999)
    assert ServedDetector(Detector(), 0.3).regions(films) == [(first,), (first,)]
    assert ServedDetector(Detector(), 0.2).regions(films) == [(first, second), (first, second)]


def test_a_bundle_with_a_detector_serves_regions_under_an_identity_of_its_own(tmp_path: Path) -> None:
    settings = InferenceSettings(
        bundle=with_detector(tmp_path / "bundle", untrained_detector(), threshold=0.01), backend="onnxruntime"
    )
    model = ServedModel.open(settings)
    assert model.detector is not None
    assert model.identity == identify(settings)
    assert model.identity.region_threshold == 0.01
    assert model.identity.digest != identify(InferenceSettings(bundle=BUNDLE)).digest
    (regions,) = model.detector.regions(np.random.default_rng(1).random((1, 224, 224), dtype=np.float32))
    assert regions
    assert all(0 <= region.left < region.right <= 1 and region.score >= 0.01 for region in regions)
