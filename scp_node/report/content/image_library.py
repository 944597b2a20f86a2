"""The Image Library of a report, which describes each image without opening it (PS3.16 TID 1600, 1602 and 1603).

Viewers of Structured Reports expect it, so it is always there; a row stands in it only if the source has the value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from scp_node.dicom.writing import Dataset
from scp_node.report import codes
from scp_node.report.codes import Concept
from scp_node.report.content.items import CONTAINS, HAS_ACQ_CONTEXT, code, container, date, image, number, text
from scp_node.report.source.mending import valid_date
from scp_node.report.source.source import Attributes, SourceImage


def image_library(sources: Sequence[SourceImage]) -> Dataset:
    """Return the library of these images, one entry each."""
    entries = [_entry(source) for source in sources]
    group = container(CONTAINS, codes.IMAGE_LIBRARY_GROUP, entries)
    return container(CONTAINS, codes.IMAGE_LIBRARY, [group])


def _entry(source: SourceImage) -> Dataset:
    entry = image(CONTAINS, codes.SOURCE, source.sop_class_uid, source.sop_instance_uid)
    attributes = source.attributes
    if rows := [*_acquisition(attributes), *_size(attributes), *_orientation(attributes), *_spacing(attributes)]:
        entry["ContentSequence"] = rows
    return entry


def _acquisition(attributes: Attributes) -> list[Dataset]:
    rows = []
    if modality := codes.MODALITIES.get(attributes.text("Modality")):
        rows.append(code(HAS_ACQ_CONTEXT, codes.MODALITY, modality))
    if study_date := valid_date(attributes.text("StudyDate")):
        rows.append(date(HAS_ACQ_CONTEXT, codes.STUDY_DATE, study_date))
    if view := codes.VIEWS.get(attributes.text("ViewPosition")):
        rows.append(code(HAS_ACQ_CONTEXT, codes.IMAGE_VIEW, view))
    return rows


def _size(attributes: Attributes) -> list[Dataset]:
    rows, columns = attributes.unsigned_short("Rows"), attributes.unsigned_short("Columns")
    if not (rows and columns):
        return []
    return [
        number(HAS_ACQ_CONTEXT, codes.PIXEL_DATA_ROWS, str(rows), codes.PIXELS),
        number(HAS_ACQ_CONTEXT, codes.PIXEL_DATA_COLUMNS, str(columns), codes.PIXELS),
    ]


def _orientation(attributes: Attributes) -> list[Dataset]:
    # PS3.3 Section C.7.6.1.1.1: up to three letters of anterior, posterior, right, left, head, feet
    directions = attributes.texts("PatientOrientation")
    if len(directions) != 2 or not all(re.fullmatch("[APRLHF]{1,3}", direction) for direction in directions):
        return []
    return [
        text(HAS_ACQ_CONTEXT, codes.PATIENT_ORIENTATION_ROW, directions[0]),
        text(HAS_ACQ_CONTEXT, codes.PATIENT_ORIENTATION_COLUMN, directions[1]),
    ]


def _spacing(attributes: Attributes) -> list[Dataset]:
    # at the detector where it is known; the first value is the distance between rows (PS3.3 Section 10.7.1.3)
    spacing = attributes.texts("ImagerPixelSpacing") or attributes.texts("PixelSpacing")
    if len(spacing) != 2 or not all(_is_length(value) for value in spacing):
        return []
    vertical, horizontal = spacing
    return [
        _millimeters(codes.HORIZONTAL_PIXEL_SPACING, horizontal),
        _millimeters(codes.VERTICAL_PIXEL_SPACING, vertical),
    ]


def _is_length(value: str) -> bool:
    return len(value) <= 16 and bool(re.fullmatch(r"[0-9]+(\.[0-9]+)?", value)) and float(value) > 0


def _millimeters(name: Concept, value: str) -> Dataset:
    return number(HAS_ACQ_CONTEXT, name, value, codes.MILLIMETER)
