"""The presentation contexts that are accepted: these SOP classes, in the transfer syntaxes of `dicom.syntaxes`."""

from __future__ import annotations

from typing import Final

from pynetdicom.presentation import PresentationContext, build_context

from scp_node.dicom.commitment_messages import PUSH_MODEL
from scp_node.dicom.syntaxes import NATIVE, TRANSFER_SYNTAXES

VERIFICATION: Final = "1.2.840.10008.1.1"

# PS3.4 Table B.5-1. Other classes get result 3: what is not offered is never sent, let alone retried.
STORAGE_CLASSES: Final = {
    "1.2.840.10008.5.1.4.1.1.1": "Computed Radiography Image Storage",
    "1.2.840.10008.5.1.4.1.1.1.1": "Digital X-Ray Image Storage - For Presentation",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture Image Storage",
}


def accepted_contexts(*, commitment: bool = False) -> list[PresentationContext]:
    """Return a new list of the contexts that the node accepts; with `commitment`, reports on it are among them."""
    storage = [build_context(uid, list(TRANSFER_SYNTAXES)) for uid in STORAGE_CLASSES]
    contexts = [build_context(VERIFICATION, list(NATIVE)), *storage]
    return [*contexts, _commitment_context()] if commitment else contexts


def _commitment_context() -> PresentationContext:
    """Return the context in which the requestor may be the SCP, and not the SCU, PS3.7 section D.3.3.4."""
    context = build_context(PUSH_MODEL, list(NATIVE))
    context.scu_role, context.scp_role = False, True  # what is accepted of the requestor's proposal
    return context
