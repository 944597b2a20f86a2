"""Who the served model is: known without its network."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scp_node.inference.identity import describe, identify
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


def test_a_grey_zone_is_part_of_the_identity_and_fits_around_the_threshold() -> None:
    point = InferenceSettings(bundle=BUNDLE, operating_point="quarter")
    assert identify(point).grey_zone == 0
    assert identify(point.model_copy(update={"grey_zone": 0.1})).grey_zone == 0.1
    with pytest.raises(SettingsError, match=r"inference\.grey_zone: 0\.3 around the threshold 0\.25"):
        identify(point.model_copy(update={"grey_zone": 0.3}))
    with pytest.raises(SettingsError, match=r"inference\.grey_zone: 0, or 0\.000001 or more"):
        identify(point.model_copy(update={"grey_zone": 1e-9}))


def test_to_name_the_model_loads_neither_a_runtime_nor_the_dicom_library() -> None:
    slow = "{'cv2', 'onnxruntime', 'pydicom', 'torch'}"
    code = f"import sys, scp_node.inference.identity; print(sorted({slow} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
