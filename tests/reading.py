"""The example of docs/reading-the-report.md: `python -m tests.reading` writes its dump and its picture anew."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from scp_node.analysis.analyse import analyse_file, conclude, picture_file
from scp_node.analysis.answers import Picture, Prepared
from scp_node.domain import Finding, ReportedImage
from scp_node.inference.served_model import ServedModel
from scp_node.report.objects.overlay import build_overlay
from scp_node.report.objects.sr import build_report
from scp_node.report.site import Site
from scp_node.report.version import ReportVersion
from scp_node.settings import AnalysisSettings, InferenceSettings, NodeSettings, ReportSettings
from tests.node import BUNDLE, radiograph
from tests.scp_node.report.reports import stored
from tests.tools import require

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
PAGE: Final = DOCS / "reading-the-report.md"
PICTURE: Final = DOCS / "overlay.png"
AT: Final = datetime(2026, 1, 1, 12, 5, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What the node makes of a phantom, read by the model that is shipped."""

    report: bytes
    picture: NDArray[np.uint8]


def example() -> Example:
    """Return report and picture, at half its size, of a phantom that the model calls positive."""
    settings = ReportSettings()
    site = Site(
        installation="a1b2c3d4-example",
        ae_title=NodeSettings().ae_title,
        manufacturer=NodeSettings().manufacturer,
        model_name=NodeSettings().model_name,
        software_version="0.1.0",
        series_number=settings.series_number,
        series_description=settings.series_description,
        time_zone=UTC,
    )
    model = ServedModel.open(InferenceSettings(bundle=BUNDLE, backend="onnxruntime"))
    image, display = _film(model)
    version = ReportVersion(images=[image], model=model.identity, site=site, at=AT)
    report = build_report(version)
    overlay = build_overlay(version, image=image, number=1, display=display)
    pixels = dcmread(BytesIO(overlay.file)).pixel_array
    half = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return Example(report=report.file, picture=half.astype(np.uint8))


def _film(model: ServedModel) -> tuple[ReportedImage, NDArray[np.uint8]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "film.dcm"
        radiograph(1, opacity=True).save_as(file, enforce_file_format=True)
        prepared, picture = analyse_file(file, AnalysisSettings()), picture_file(file)
        assert isinstance(prepared, Prepared)
        assert isinstance(picture, Picture)
        scores = model.scores(prepared.inputs[None])
        logit = float(scores.logits[0])
        found = conclude(
            prepared, logit=logit, probability=model.probability(logit), threshold=model.identity.threshold
        )
        assert isinstance(found, Finding)
        attention = scores.maps([0])[0].astype("<f4").tobytes()
        return stored(file, replace(found, attention=attention)), picture.display


def dump(report: bytes) -> str:
    """Return what DCMTK's dsrdump shows of a report."""
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        file.write(report)
        file.flush()
        done = subprocess.run([require("dsrdump"), "+Pl", file.name], capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def shown(page: str) -> str:
    """Return the dump that the page shows."""
    found = re.search(r"```text\n(.*?)\n```", page, re.DOTALL)
    assert found
    return found[1]


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```"


def main() -> None:
    """Write the dump into the page, and the picture beside it."""
    made = example()
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page.replace(_fenced(shown(page)), _fenced(dump(made.report))), encoding="utf-8")
    cv2.imwrite(str(PICTURE), made.picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
