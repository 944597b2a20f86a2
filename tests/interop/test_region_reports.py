"""Reports with regions, read by programs that did not come from us."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import highdicom
import numpy as np
import pytest

from scp_node.domain import Region
from scp_node.report.sop_class import SOP_CLASSES, with_sop_class
from tests.interop.test_report_validators import _pixelmed as pixelmed_errors
from tests.scp_node.report.reports import IMAGE, LATERAL, MODEL, POSITIVE, built, lateral, radiograph
from tests.tools import require

REGIONS: Final = (
    Region(left=0.125, top=0.4, right=0.375, bottom=0.8, score=0.62),
    Region(left=0.6, top=0.3, right=0.9, bottom=1.0, score=0.31),
)
UNKNOWN_DEVICE_UID: Final = "DeviceUID(0018,1002)> - Attribute is not present in standard DICOM IOD"  # to dciodvfy
MODEL_WITH_DETECTOR: Final = replace(MODEL, region_threshold=0.3)


@pytest.fixture(params=SOP_CLASSES)
def report(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A report of a positive film with two regions and of a lateral one, in each of the three SOP classes."""
    images = [radiograph(replace(POSITIVE, regions=REGIONS)), lateral(LATERAL)]
    path = tmp_path / "report.dcm"
    path.write_bytes(with_sop_class(built(*images, model=MODEL_WITH_DETECTOR).file, request.param))
    return path


@pytest.mark.needs("dciodvfy")
def test_dciodvfy_finds_nothing_wrong_with_regions(report: Path) -> None:
    done = subprocess.run([require("dciodvfy"), "-new", report], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    findings = [line for line in lines if not ("Warning" in line and line.endswith(UNKNOWN_DEVICE_UID))]
    assert findings in [["Comprehensive3DSR"], ["ComprehensiveSR"], ["EnhancedSR"]]


@pytest.mark.needs("dsrdump")
def test_dcmtk_shows_each_region_below_its_finding(report: Path) -> None:
    done = subprocess.run([require("dsrdump"), "-q", "+Pl", report], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('(112001,DCM,"Opacity")') == 2
    assert done.stdout.count('"Image Region")=(POLYLINE') == 2
    assert '"Certainty of Finding")="62.0" (%,UCUM,"Percent")' in done.stdout


@pytest.mark.needs("java", "javac", "pixelmed")
def test_pixelmed_finds_the_template_of_regions_followed(tmp_path: Path) -> None:
    path = tmp_path / "regions.dcm"
    path.write_bytes(built(radiograph(replace(POSITIVE, regions=REGIONS)), model=MODEL_WITH_DETECTOR).file)
    assert dict(pixelmed_errors(tmp_path, [path])) == {"regions": []}


@pytest.mark.parametrize("sop_class_uid", SOP_CLASSES)
def test_highdicom_reads_regions_back_as_planar_regions_of_interest(sop_class_uid: str) -> None:
    image = radiograph(replace(POSITIVE, regions=REGIONS))
    file = with_sop_class(built(image, model=MODEL_WITH_DETECTOR).file, sop_class_uid)
    read: Any = highdicom.sr.srread(BytesIO(file))
    first, second = read.content.get_planar_roi_measurement_groups()
    assert first.finding_type.meaning == second.finding_type.meaning == "Opacity"
    assert first.tracking_uid != second.tracking_uid
    assert first.reference_type.meaning == "Image Region"
    assert np.allclose(first.roi.value, [[256, 1000], [768, 1000], [768, 2000], [256, 2000], [256, 1000]])
    (certainty,) = first.get_measurements()
    assert (certainty.name.meaning, certainty.value, certainty.unit.value) == ("Certainty of Finding", 62.0, "%")
    (whole,) = read.content.get_image_measurement_groups()
    assert whole.finding_type.meaning == "Pneumonia"
    assert whole.source_images[0].referenced_sop_instance_uid == IMAGE
