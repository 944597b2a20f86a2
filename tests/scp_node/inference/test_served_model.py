"""The model as the node serves it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pneumonia_model.bundle import BundleError
from pneumonia_model.errors import BackendError
from pneumonia_model.regions import Regions

from scp_node.analysis.answers import Prepared
from scp_node.domain import Finding, NotAnalysed, Reason, Region
from scp_node.inference.identity import identify
from scp_node.inference.served_model import ServedDetector, ServedModel
from scp_node.loops.analyse import infer
from scp_node.settings import InferenceSettings
from tests.model.detectors import untrained_detector, with_detector
from tests.model.gates import phantoms, with_gate
from tests.node import BUNDLE


def test_opening_the_model_checks_its_golden_answers() -> None:
    model = ServedModel.open(InferenceSettings(bundle=BUNDLE, backend="onnxruntime"))
    assert (model.backend, model.device, model.precision) == ("onnxruntime", "cpu", "float32")
    assert model.runtime == "onnxruntime, cpu, float32"
    assert model.identity.digest.startswith("sha256:")
    assert 0 < model.probability(0.0) < 1


def test_the_model_is_opened_in_the_precision_of_the_settings() -> None:
    with pytest.raises(BackendError, match="bfloat16"):
        ServedModel.open(InferenceSettings(bundle=BUNDLE, backend="onnxruntime", precision="bfloat16"))


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


def test_a_bundle_with_a_gate_refuses_what_it_does_not_know_and_names_what_it_looks_like(tmp_path: Path) -> None:
    model = ServedModel.open(InferenceSettings(bundle=with_gate(tmp_path / "bundle"), backend="onnxruntime"))
    film = phantoms(3000, 1)[0]
    pictures = [film, np.ascontiguousarray(np.rot90(film, 2)), np.full_like(film, 0.5)]
    known, turned, grey = infer(model, [Prepared(inputs=picture) for picture in pictures])
    assert isinstance(known, Finding)
    assert 0 < known.input_stats["unlikeness"] <= 1
    assert isinstance(turned, NotAnalysed)
    assert isinstance(grey, NotAnalysed)
    assert {turned.reason, grey.reason} == {Reason.UNLIKE_A_FRONTAL_CHEST_FILM}
    assert turned.detail.startswith("looks like one that is upside down; unlikeness ")
    assert grey.detail.startswith("nor would it if it were turned or inverted; unlikeness ")


def test_a_gate_that_has_lost_its_mind_ends_the_service(tmp_path: Path) -> None:
    model = ServedModel.open(InferenceSettings(bundle=with_gate(tmp_path / "bundle"), backend="onnxruntime"))
    model.verify()
    assert model.gate is not None
    model.gate = replace(model.gate, limit=2 * model.gate.limit)
    with pytest.raises(BundleError, match="golden figures"):
        model.verify()
