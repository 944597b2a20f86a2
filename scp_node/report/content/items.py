"""The content items of a Structured Report, made from values: the value types of PS3.3 Section C.17.3 that we use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from scp_node.dicom.writing import Dataset
from scp_node.report.attributes import code_item, dataset
from scp_node.report.codes import Concept

# Relationship types, PS3.3 Section C.17.3.2.4
CONTAINS: Final = "CONTAINS"
HAS_ACQ_CONTEXT: Final = "HAS ACQ CONTEXT"
HAS_CONCEPT_MOD: Final = "HAS CONCEPT MOD"
HAS_OBS_CONTEXT: Final = "HAS OBS CONTEXT"
INFERRED_FROM: Final = "INFERRED FROM"
SELECTED_FROM: Final = "SELECTED FROM"


def container(
    relationship: str | None, name: Concept, children: Sequence[Dataset], template: str | None = None
) -> Dataset:
    """Return a heading with content below it; without `relationship` it is the root."""
    # SEPARATE: each child is a separate statement. With CONTINUOUS, renderers run values together without names.
    item = _item(relationship, "CONTAINER", name, ContinuityOfContent="SEPARATE", ContentSequence=list(children))
    if template is not None:
        item["ContentTemplateSequence"] = [dataset(MappingResource="DCMR", TemplateIdentifier=template)]
    return item


def text(relationship: str, name: Concept, value: str) -> Dataset:
    """Return a named text."""
    return _item(relationship, "TEXT", name, TextValue=value)


def code(relationship: str, name: Concept, value: Concept) -> Dataset:
    """Return a named code."""
    return _item(relationship, "CODE", name, ConceptCodeSequence=[code_item(value)])


def date(relationship: str, name: Concept, value: str) -> Dataset:
    """Return a named date, `value` as DA."""
    return _item(relationship, "DATE", name, Date=value)


def uid_reference(relationship: str, name: Concept, value: str) -> Dataset:
    """Return a named UID."""
    return _item(relationship, "UIDREF", name, UID=value)


def number(relationship: str, name: Concept, value: str, unit: Concept, children: Sequence[Dataset] = ()) -> Dataset:
    """Return a named number, `value` as DS."""
    measured = dataset(NumericValue=value, MeasurementUnitsCodeSequence=[code_item(unit)])
    return _with_children(_item(relationship, "NUM", name, MeasuredValueSequence=[measured]), children)


def absent_number(relationship: str, name: Concept, why: Concept, children: Sequence[Dataset] = ()) -> Dataset:
    """Return a named number without a value, and why it has none (PS3.3 Table C.18.1-1)."""
    item = _item(
        relationship,
        "NUM",
        name,
        MeasuredValueSequence=[],
        NumericValueQualifierCodeSequence=[code_item(why)],
    )
    return _with_children(item, children)


def image(relationship: str, name: Concept | None, sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """Return a reference to an image."""
    reference = dataset(ReferencedSOPClassUID=sop_class_uid, ReferencedSOPInstanceUID=sop_instance_uid)
    return _item(relationship, "IMAGE", name, ReferencedSOPSequence=[reference])


def polyline(
    relationship: str, name: Concept, points: Sequence[tuple[float, float]], selected_from: Dataset
) -> Dataset:
    """Return a line through `points`, (column, row) in pixels from the image's upper left corner."""
    data = [coordinate for point in points for coordinate in point]
    return _item(
        relationship, "SCOORD", name, GraphicType="POLYLINE", GraphicData=data, ContentSequence=[selected_from]
    )


def _item(relationship: str | None, value_type: str, name: Concept | None, **value: Any) -> Dataset:
    item = dataset(ValueType=value_type, **value)
    if relationship is not None:
        item["RelationshipType"] = relationship
    if name is not None:
        item["ConceptNameCodeSequence"] = [code_item(name)]
    return item


def _with_children(item: Dataset, children: Sequence[Dataset]) -> Dataset:
    if children:
        item["ContentSequence"] = list(children)
    return item
