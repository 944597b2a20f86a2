"""The presentation contexts that are accepted: one table, which CONFORMANCE.md is compared with."""

from __future__ import annotations

from typing import Final

from pynetdicom.presentation import PresentationContext, build_context

from scp_node.dicom.commitment_messages import PUSH_MODEL, SYNTAXES

VERIFICATION: Final = "1.2.840.10008.1.1"

# PS3.4 Table B.5-1. Other classes get result 3: what is not offered is never sent, let alone retried.
STORAGE_CLASSES: Final = {
    "1.2.840.10008.5.1.4.1.1.1": "Computed Radiography Image Storage",
    "1.2.840.10008.5.1.4.1.1.1.1": "Digital X-Ray Image Storage - For Presentation",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture Image Storage",
}

# PS3.5 Annex A, in our order of preference: who offers several in one context is asked for the one that loses nothing.
# Not Deflated: two megabytes of it may be two gigabytes. Not Big Endian: retired.
TRANSFER_SYNTAXES: Final = {
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14, Selection Value 1)",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless, Non-Hierarchical (Process 14)",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 (Lossless Only)",
    "1.2.840.10008.1.2.5": "RLE Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Lossy (Near-Lossless)",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.51": "JPEG Extended (Processes 2 and 4)",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline (Process 1)",
}

_VERIFICATION_SYNTAXES: Final = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")


def accepted_contexts(*, commitment: bool = False) -> list[PresentationContext]:
    """Return a new list of the contexts that the node accepts; with `commitment` reports on it are taken, too."""
    storage = [build_context(uid, list(TRANSFER_SYNTAXES)) for uid in STORAGE_CLASSES]
    contexts = [build_context(VERIFICATION, list(_VERIFICATION_SYNTAXES)), *storage]
    return [*contexts, _commitment_context()] if commitment else contexts


def _commitment_context() -> PresentationContext:
    """Return the context in which the requestor may be the SCP, and not the SCU, PS3.7 section D.3.3.4."""
    context = build_context(PUSH_MODEL, list(SYNTAXES))
    context.scu_role, context.scp_role = False, True  # what is accepted of the requestor's proposal
    return context
