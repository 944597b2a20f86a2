"""What the documents state is what the code does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_description

from scp_node.analysis.refusals import NOTES, REASONS
from scp_node.cli.commands import cli
from scp_node.dicom import implementation, syntaxes
from scp_node.dicom.commitment_messages import EventStatus
from scp_node.domain import BuiltObject, Reason, Region
from scp_node.ledger import DeliveryState, ImageState
from scp_node.listener import contexts, policy
from scp_node.listener.store import StoreStatus
from scp_node.report import codes
from scp_node.report.objects.key_object import build_key_object
from scp_node.report.objects.overlay import build_overlay
from scp_node.report.objects.presentation_state import build_presentation_state
from scp_node.report.objects.segmentation import build_segmentation
from scp_node.report.objects.trial import build_trial_report
from scp_node.report.sop_class import COMPANION_SOP_CLASSES
from scp_node.settings import Settings
from scp_node.torture.attacks import ATTACKS
from scp_node.torture.rows import Verdict
from tests.node import BUNDLE
from tests.scp_node.report.reports import (
    AT,
    POSITIVE,
    PREVIOUS,
    SITE,
    built,
    radiograph,
    rich_header,
    text_report,
    version_of,
)


@pytest.fixture(scope="module")
def statement(repository: Path) -> str:
    return (repository / "CONFORMANCE.md").read_text(encoding="utf-8")


def table(text: str, heading: str) -> list[list[str]]:
    """Return the rows of the first table whose first line starts with `heading`, without its head."""
    lines = text[text.index(f"| {heading}") :].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_sop_classes_are_those_that_are_accepted(statement: str) -> None:
    assert {uid: name for name, uid in table(statement, "SOP class | UID")} == contexts.STORAGE_CLASSES


def test_the_transfer_syntaxes_are_those_that_are_accepted_in_their_order(statement: str) -> None:
    rows = [(uid, name) for name, uid in table(statement, "Transfer syntax | UID")]
    assert rows == list(syntaxes.TRANSFER_SYNTAXES.items())


def test_every_status_is_explained(statement: str) -> None:
    assert [int(row[0], 16) for row in table(statement, "Status |")] == sorted(StoreStatus)


def test_the_reasons_of_the_header_have_the_sentences_of_the_report(statement: str) -> None:
    stated = {reason.strip("`"): sentence for reason, sentence, _ in table(statement, "Reason | Sentence")}
    assert len(stated) == 6
    assert stated == {reason: Reason(reason).sentence for reason in stated}


def test_every_status_of_a_commitment_report_is_explained(statement: str) -> None:
    assert [int(row[0], 16) for row in table(statement, "Status of an N-EVENT-REPORT")] == sorted(EventStatus)


def test_every_reason_and_its_sentence_is_listed_with_what_leads_to_it(statement: str) -> None:
    rows = table(statement, "Why an image is not analysed")
    assert {(reason.strip("`"), sentence) for _, reason, sentence in rows} == {(r.value, r.sentence) for r in Reason}
    stated = {condition: reason.strip("`") for condition, reason, _ in rows}
    assert len(stated) == len(rows)
    assert {defect: stated.get(defect.value) for defect in REASONS} == {d: r.value for d, r in REASONS.items()}


def test_all_that_is_read_in_its_only_sense_is_listed_with_its_note(statement: str) -> None:
    stated = dict(table(statement, "Not as the standard says"))
    assert stated == {mended.value: note.sentence for mended, note in NOTES.items()}


def test_every_rejection_is_listed_with_its_numbers(statement: str) -> None:
    rejections = [value for value in vars(policy).values() if isinstance(value, policy.Rejection)]
    stated = {row[0]: row[1] for row in table(statement, "Situation")}
    assert stated == {r.reason: f"{r.result}, {r.source}, {r.diagnostic}" for r in rejections}


def test_the_report_classes_are_the_default_setting(statement: str) -> None:
    assert [uid for _, uid in table(statement, "SOP class, in this order")] == list(Settings().report.sop_classes)


def test_the_classes_of_what_goes_with_a_report_are_those_offered(statement: str) -> None:
    assert [uid for _, uid in table(statement, "SOP class of what goes")] == list(COMPANION_SOP_CLASSES)


def read(made: BuiltObject | None) -> Dataset:
    assert made is not None
    return dcmread(BytesIO(made.file))


@pytest.fixture(scope="module")
def created() -> dict[str, list[Dataset]]:
    """Objects of a film whose header has all that is taken over, and of one that has nothing else."""
    poor = radiograph(PatientAge=None, StudyDescription=None, Manufacturer=None, Rows=20, Columns=20)
    display: dict[str, Any] = {"WindowCenter": "1", "WindowWidth": "2", "RescaleSlope": "1", "RescaleIntercept": "0"}
    rich = radiograph(**(rich_header() | {"Rows": 20, "Columns": 20}), **display, LossyImageCompression="01")
    seen = replace(POSITIVE, attention=np.zeros((14, 14), "<f4").tobytes())
    picture = np.zeros((64, 64), np.uint8)
    films = (poor, rich)
    region = Region(left=0, top=0, right=1, bottom=1, score=0.5)
    regions = [replace(film, outcome=replace(POSITIVE, regions=(region,))) for film in films]
    return {
        "report": [dcmread(BytesIO(built(film, previous=PREVIOUS, incomplete=film is rich).file)) for film in films],
        "text": [dcmread(BytesIO(text_report(film, incomplete=film is rich).file)) for film in films],
        "presentation state": [read(build_presentation_state(version_of(film), image=film)) for film in regions],
        "segmentation": [read(build_segmentation(version_of(film), image=film)) for film in regions],
        "key object": [read(build_key_object(version_of(film), pictures=())) for film in regions],
        "picture": [
            read(build_overlay(version_of(film), image=replace(film, outcome=seen), number=1, display=picture))
            for film in films
        ],
    }


@pytest.mark.parametrize("kind", ["report", "text", "picture", "presentation state", "segmentation", "key object"])
def test_every_attribute_that_is_written_is_stated_and_every_stated_one_is_written(
    statement: str, created: dict[str, list[Dataset]], kind: str
) -> None:
    rows = table(statement, "Attribute of every object") + table(statement, f"Attribute of the {kind}")
    stated = [name for row in rows for name in row[0].split(", ")]
    if kind == "presentation state":  # the one without
        stated = [name for name in stated if name not in {"Content Date", "Content Time"}]
    assert len(stated) == len(set(stated))
    written = {dictionary_description(element.tag) for made in created[kind] for element in made}
    assert set(stated) == written


def test_every_attribute_of_the_test_report_is_stated(statement: str) -> None:
    rows = table(statement, "Attribute of the test report")
    written = {dictionary_description(element.tag): element for element in read(build_trial_report(SITE, AT))}
    stated = {name: row[1] for row in rows for name in row[0].split(", ")}
    assert set(stated) == set(written)
    for name in ("Patient's Name", "Patient ID", "Study Description"):
        assert str(written[name].value) == stated[name]


def test_what_is_fixed_does_not_depend_on_the_image(statement: str, created: dict[str, list[Dataset]]) -> None:
    for kind, (poor, rich) in created.items():
        rows = table(statement, "Attribute of every object") + table(statement, f"Attribute of the {kind}")
        fixed = {name for row in rows if row[1] == "fixed" for name in row[0].split(", ")}
        assert fixed
        for element in poor:
            if dictionary_description(element.tag) in fixed:
                assert element == rich[element.tag], element.keyword


def test_the_codes_are_those_of_the_report(statement: str) -> None:
    concepts = [value for value in vars(codes).values() if isinstance(value, codes.Concept)]
    tables = [value.values() for value in vars(codes).values() if isinstance(value, Mapping)]
    concepts += [each for values in tables for each in values if isinstance(each, codes.Concept)]
    stated = {(code, meaning) for code, meaning in table(statement, "Code of the report")}
    assert stated == {(f"({each.value}, {each.scheme})", each.meaning) for each in concepts}


def test_the_implementation_is_named(statement: str) -> None:
    assert f"`{implementation.IMPLEMENTATION_CLASS_UID}`" in statement
    assert f"`{implementation.IMPLEMENTATION_VERSION_NAME}`" in statement


def test_the_readme_explains_every_state_of_an_image(repository: Path) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    rows = table(readme, "state of an image")
    assert {state for row in rows for state in re.findall(r"`([a-z-]+)`", row[0])} == set(ImageState)


def test_the_readme_explains_every_state_of_a_delivery(repository: Path) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    assert {row[0].strip("`") for row in table(readme, "state of a delivery")} == set(DeliveryState)


def test_the_settings_that_the_readme_names_exist_with_those_defaults(repository: Path) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    named = {key: row[1] for row in table(readme, "setting |") for key in re.findall(r"`([a-z_]+\.[a-z_]+)`", row[0])}
    assert len(named) > 5
    for key in named:
        section, _, name = key.partition(".")
        assert hasattr(getattr(Settings(), section), name), key


def test_the_figures_of_the_readme_are_the_bundle_s(repository: Path) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    figures = json.loads((BUNDLE / "metrics.json").read_text(encoding="utf-8"))["test"]
    names = {"AP films": "view AP", "PA films": "view PA", "against Not Normal": "against No Lung Opacity / Not Normal"}
    for name, model, view, thumbnail in table(readme, "AUC among"):
        (value, low, high), *baselines = [auc[names.get(name, name)] for auc in figures["auc"].values()]
        assert model == f"{value:.3f} [{low:.3f}-{high:.3f}]"
        assert [view, thumbnail] == [f"{baseline[0]:.3f}" for baseline in baselines]
    gain, low, high = figures["auc_difference"]["16 x 16 thumbnail, logistic regression"]["all"]
    assert f"adds {gain:.3f} [{low:.3f}-{high:.3f}] to what a thumbnail says" in readme
    points = {f"`{point['name']}`": point for point in figures["operating_points"]}
    for name, threshold, *rates in table(readme, "operating point |"):
        point = points[name.removesuffix(" (default)")]
        assert threshold == f"{point['threshold']:.3g}"
        assert rates == [f"{point[rate][0]:.2f}" for rate in ("recall", "specificity", "precision")]


def test_the_page_of_the_hostile_network_has_a_row_for_each_attack_and_each_verdict(repository: Path) -> None:
    page = (repository / "docs" / "hostile.md").read_text(encoding="utf-8")
    rows = table(page, "attack | each connection sends")
    asked = {attack.name: (attack.asked, str(attack.at_once)) for attack in ATTACKS}
    assert {row[0].strip("`"): (row[1], row[2]) for row in rows[1:]} == asked
    assert [row[0].strip("`") for row in table(page, "verdict |")] == list(Verdict)


def test_the_commands_that_the_readme_names_exist(repository: Path) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    commands = set(typer.main.get_group(cli).commands)
    named = set(re.findall(r"`?scp-node ([a-z]+)", readme))
    assert named
    assert named <= commands
