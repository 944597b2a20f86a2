"""The result of each image as a measurement group (PS3.16 TID 1501), and the conclusion over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from scp_node.dicom.writing import Dataset
from scp_node.domain import UNLIKENESS, Completion, Finding, ModelIdentity, Outcome
from scp_node.report import codes
from scp_node.report.content.items import (
    CONTAINS,
    HAS_CONCEPT_MOD,
    HAS_OBS_CONTEXT,
    INFERRED_FROM,
    SELECTED_FROM,
    absent_number,
    code,
    container,
    image,
    number,
    polyline,
    text,
    uid_reference,
)
from scp_node.report.content.wording import image_sentence, leading_finding, percent, short_comment, study_sentence
from scp_node.report.source.source import SourceImage
from scp_node.report.version import Remark

TRACKING_IDENTIFIER: Final = "Pneumonia (image level)"
DIGEST_LENGTH: Final = len("sha256:") + 12  # of a model's digest, as it is shown in its version


def completion(outcome: Outcome) -> Completion:
    """Return how the analysis of one image ended."""
    return Completion.SUCCEEDED if isinstance(outcome, Finding) else outcome.reason.completion


def measurement_group(source: SourceImage, outcome: Outcome, model: ModelIdentity, tracking_uid: str) -> Dataset:
    """Return the result of one image, analysed or not."""
    threshold = outcome.threshold if isinstance(outcome, Finding) else model.threshold
    return container(
        CONTAINS,
        codes.MEASUREMENT_GROUP,
        [
            text(HAS_OBS_CONTEXT, codes.TRACKING_IDENTIFIER, TRACKING_IDENTIFIER),
            uid_reference(HAS_OBS_CONTEXT, codes.TRACKING_UNIQUE_IDENTIFIER, tracking_uid),
            *_finding(outcome),
            code(HAS_CONCEPT_MOD, codes.FINDING_SITE, codes.LUNG),
            *algorithm(model, _parameters(model, threshold, outcome)),
            _probability(source, outcome),
            text(CONTAINS, codes.COMMENT, short_comment(outcome)),
            text(CONTAINS, codes.CONCLUSION, image_sentence(outcome, model)),
            *_verdict(outcome),
            code(CONTAINS, codes.SUMMARY_OF_DETECTIONS, codes.COMPLETIONS[completion(outcome)]),
            image(CONTAINS, codes.SOURCE_OF_MEASUREMENT, source.sop_class_uid, source.sop_instance_uid),
        ],
        template="1501",
    )


def conclusion(outcomes: Sequence[Outcome], model: ModelIdentity, remarks: Sequence[Remark]) -> Dataset:
    """Return what the report says of the study."""
    leading = leading_finding(outcomes)
    return container(
        CONTAINS,
        codes.QUALITATIVE_EVALUATIONS,
        [
            *(_verdict(leading) if leading else ()),
            code(CONTAINS, codes.SUMMARY_OF_DETECTIONS, _study_completion(outcomes)),
            text(CONTAINS, codes.COMMENT, study_sentence(outcomes, model, remarks)),
        ],
    )


def _finding(outcome: Outcome) -> list[Dataset]:
    # viewers show this line alone: it must not stand in a report that says "not detected"
    return [code(CONTAINS, codes.FINDING, codes.PNEUMONIA)] if outcome.is_positive else []


def _parameters(model: ModelIdentity, threshold: float, outcome: Outcome) -> dict[str, str]:
    parameters = {"operating_threshold": repr(threshold), "calibration": model.calibration}
    if grey_zone := outcome.grey_zone if isinstance(outcome, Finding) else model.grey_zone:
        parameters["grey_zone"] = repr(grey_zone)
    if isinstance(outcome, Finding) and UNLIKENESS in outcome.input_stats:
        parameters[UNLIKENESS] = f"{outcome.input_stats[UNLIKENESS]:g}"  # the gate has looked; it refuses above 1
    if model.region_threshold is not None:  # regions were looked for, also where none follows
        parameters["region_threshold"] = repr(model.region_threshold)
    return parameters


def algorithm(model: ModelIdentity, parameters: Mapping[str, str]) -> list[Dataset]:
    """Return which model spoke, and how it was set (PS3.16 TID 4019)."""
    settings = {**parameters, "input": model.input, "status": model.status, "digest": model.digest}
    items = [
        text(HAS_CONCEPT_MOD, codes.ALGORITHM_NAME, model.name),
        text(HAS_CONCEPT_MOD, codes.ALGORITHM_VERSION, f"{model.version}+{model.digest[:DIGEST_LENGTH]}"),
        *(text(HAS_CONCEPT_MOD, codes.ALGORITHM_PARAMETERS, f"{key}={value}") for key, value in settings.items()),
    ]
    if model.manufacturer:
        items.append(text(HAS_CONCEPT_MOD, codes.ALGORITHM_MANUFACTURER, model.manufacturer))
    return items


def _probability(source: SourceImage, outcome: Outcome) -> Dataset:
    where = [_whole_image(source)]
    if not isinstance(outcome, Finding):
        qualifier = codes.QUALIFIERS[outcome.reason.completion]
        return absent_number(CONTAINS, codes.PROBABILITY, qualifier, where)
    return number(CONTAINS, codes.PROBABILITY, percent(outcome.probability, *outcome.limits), codes.PERCENT, where)


def _whole_image(source: SourceImage) -> Dataset:
    """Return the outline of the image: the value was inferred from all of it.

    It is there for every image, one pixel large where the size is not known: OHIF shows nothing of a report in which
    one measurement group has no coordinates.
    """
    columns = source.attributes.unsigned_short("Columns") or 1
    rows = source.attributes.unsigned_short("Rows") or 1
    corners = [(0, 0), (columns, 0), (columns, rows), (0, rows), (0, 0)]
    reference = image(SELECTED_FROM, None, source.sop_class_uid, source.sop_instance_uid)
    return polyline(INFERRED_FROM, codes.SOURCE_OF_MEASUREMENT, corners, reference)


def _verdict(outcome: Outcome) -> list[Dataset]:
    if not isinstance(outcome, Finding):
        return []
    return [code(CONTAINS, codes.PNEUMONIA, codes.VERDICTS[outcome.verdict])]


def _study_completion(outcomes: Sequence[Outcome]) -> codes.Concept:
    ended = {completion(outcome) for outcome in outcomes}
    if {Completion.SUCCEEDED, Completion.FAILED} <= ended:
        return codes.PARTIALLY_SUCCEEDED
    for first in (Completion.SUCCEEDED, Completion.FAILED):
        if first in ended:
            return codes.COMPLETIONS[first]
    return codes.COMPLETIONS[Completion.NOT_ATTEMPTED]
