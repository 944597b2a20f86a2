"""The model as the node serves it."""

from __future__ import annotations

import pytest

from scp_node.model import ServedModel, describe, identify
from scp_node.settings import InferenceSettings, SettingsError
from tests.node import BUNDLE


def test_the_threshold_is_the_bundle_s_own_or_another_of_its_operating_points() -> None:
    default = identify(InferenceSettings(bundle=BUNDLE))
    points = {
        point["name"]: point["threshold"] for point in describe(InferenceSettings(bundle=BUNDLE))["operating_points"]
    }
    assert default.threshold in points.values()
    for name, threshold in points.items():
        assert identify(InferenceSettings(bundle=BUNDLE, operating_point=name)).threshold == threshold


def test_a_threshold_that_the_bundle_does_not_know_stops_the_start_with_those_it_has() -> None:
    with pytest.raises(SettingsError, match=r"inference\.operating_point: .* has .*, not 'best'"):
        identify(InferenceSettings(bundle=BUNDLE, operating_point="best"))


def test_opening_the_model_checks_its_golden_answers() -> None:
    model = ServedModel.open(InferenceSettings(bundle=BUNDLE, backend="onnxruntime"))
    assert (model.backend, model.device) == ("onnxruntime", "cpu")
    assert model.identity.digest.startswith("sha256:")
    assert 0 < model.probability(0.0) < 1
