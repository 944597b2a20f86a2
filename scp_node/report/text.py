"""A Structured Report as indented text, for people at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread


def as_text(file: bytes) -> str:
    """Return the content tree of a Part 10 file as lines "concept: value", children indented."""
    return "\n".join(_lines(dcmread(BytesIO(file)), 0))


def _lines(item: Dataset, depth: int) -> Iterator[str]:
    name = _meaning(item.get("ConceptNameCodeSequence"))
    value = _value(item)
    text = ": ".join(part for part in (name or item.get("ValueType", ""), value) if part)
    yield "  " * depth + text
    for child in item.get("ContentSequence", []):
        yield from _lines(child, depth + 1)


def _meaning(sequence: Any) -> str:
    return str(sequence[0].get("CodeMeaning", "")) if sequence else ""


def _value(item: Dataset) -> str:
    match item.get("ValueType"):
        case "TEXT":
            return str(item.get("TextValue", ""))
        case "CODE":
            return _meaning(item.get("ConceptCodeSequence"))
        case "NUM":
            return _number(item)
        case "UIDREF":
            return str(item.get("UID", ""))
        case "IMAGE" | "COMPOSITE":
            reference = item.get("ReferencedSOPSequence")
            return str(reference[0].get("ReferencedSOPInstanceUID", "")) if reference else ""
        case "SCOORD":
            return str(item.get("GraphicType", ""))
        case _:
            return ""


def _number(item: Dataset) -> str:
    measured = item.get("MeasuredValueSequence")
    if not measured:
        return _meaning(item.get("NumericValueQualifierCodeSequence")) or "no value"
    unit = measured[0].get("MeasurementUnitsCodeSequence")
    return f"{measured[0].get('NumericValue')} {unit[0].get('CodeValue', '') if unit else ''}".strip()
