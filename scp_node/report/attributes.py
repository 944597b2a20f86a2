"""Datasets from values, by keyword."""

from __future__ import annotations

from typing import Any

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from scp_node.report.codes import Concept


def dataset(**attributes: Any) -> Dataset:
    """Return a dataset of these attributes, whatever their values.

    No value is validated here: pydicom would put a wrong one, the patient's perhaps, into a warning and the log.
    """
    result = Dataset()
    for keyword, value in attributes.items():
        put(result, keyword, value)
    return result


def put(target: Dataset, keyword: str, value: Any) -> None:
    """Set one attribute, without validation."""
    tag = Tag(keyword)
    target.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=IGNORE))


def code_item(concept: Concept) -> Dataset:
    """Return the concept as an item of a code sequence (PS3.3 Table 8.8-1)."""
    return dataset(CodeValue=concept.value, CodingSchemeDesignator=concept.scheme, CodeMeaning=concept.meaning)
