"""Headers with names, and a ledger whose projections follow it."""

from __future__ import annotations

from typing import Any, Final

from pydicom import Dataset

from scp_node.dicom.commitment_messages import encoded
from scp_node.ledger import Projector, WorklistQuery, WorklistRow
from scp_node.ledger.trail.sealer import seal_all
from scp_node.report.source.description import describe
from tests.scp_node.ledger_node import Node

EXPLICIT: Final = "1.2.840.10008.1.2.1"


def header(name: str = "Doe^Jane", **values: Any) -> bytes:
    """Return the header of a film of this patient, in UTF-8."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = name
    for keyword, value in ({"PatientSex": "F", "PatientAge": "064Y", "ViewPosition": "PA"} | values).items():
        setattr(dataset, keyword, value)
    return encoded(dataset, EXPLICIT)


def projector(node: Node, owner: str = "test") -> Projector:
    """Return a projector of this ledger."""
    return node.ledger.projector(describe, owner=owner)


def follow(following: Projector) -> None:
    """Seal what waits, and let a projector work until it has nothing to do."""
    seal_all(following._transactions)
    while following.step():
        pass


def followed(node: Node, query: WorklistQuery | None = None) -> list[WorklistRow]:
    """Bring the list up to date, and return the rows that a query selects."""
    following = projector(node)
    follow(following)
    following.close()
    return list(node.ledger.worklist.rows(query or WorklistQuery()))
