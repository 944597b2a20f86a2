"""A Structured Report as indented text, for people at a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any, Final

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
    show = _VALUES.get(str(item.get("ValueType")))
    return show(item) if show else ""


def _number(item: Dataset) -> str:
    measured = item.get("MeasuredValueSequence")
    if not measured:
        return _meaning(item.get("NumericValueQualifierCodeSequence")) or "no value"
    unit = measured[0].get("MeasurementUnitsCodeSequence")
    return f"{measured[0].get('NumericValue')} {unit[0].get('CodeValue', '') if unit else ''}".strip()


def _reference(item: Dataset) -> str:
    references = item.get("ReferencedSOPSequence")
    return str(references[0].get("ReferencedSOPInstanceUID", "")) if references else ""


_VALUES: Final[Mapping[str, Callable[[Dataset], str]]] = {  # PS3.3 Table C.17.3-7
    "TEXT": lambda item: str(item.get("TextValue", "")),
    "CODE": lambda item: _meaning(item.get("ConceptCodeSequence")),
    "DATE": lambda item: str(item.get("Date", "")),
    "NUM": _number,
    "UIDREF": lambda item: str(item.get("UID", "")),
    "IMAGE": _reference,
    "COMPOSITE": _reference,
    "SCOORD": lambda item: str(item.get("GraphicType", "")),
}
