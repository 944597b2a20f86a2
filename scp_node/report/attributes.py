"""Datasets of our objects: values by keyword, as `scp_node.dicom.writing` encodes them."""

from __future__ import annotations

from typing import Any

from scp_node.dicom.writing import Dataset
from scp_node.report.codes import Concept


def dataset(**attributes: Any) -> Dataset:
    """Return a dataset of these attributes, whatever their values: nothing is validated or changed."""
    return attributes


def code_item(concept: Concept) -> Dataset:
    """Return the concept as an item of a code sequence (PS3.3 Table 8.8-1)."""
    return dataset(CodeValue=concept.value, CodingSchemeDesignator=concept.scheme, CodeMeaning=concept.meaning)
