"""The transfer syntaxes that the node accepts (PS3.5 Annex A): one table, which CONFORMANCE.md is compared with.

A new one is one line here, and a decoder in `pneumonia_model.decoding`, which a test asks for.
"""

from __future__ import annotations

from typing import Final

EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"

# In our order of preference: who offers several in one context is asked for the one that loses nothing.
# Not Deflated: two megabytes of it may be two gigabytes. Not Big Endian: retired.
NATIVE: Final = {  # the node also writes these: reports, and what else it sends
    EXPLICIT_VR_LITTLE_ENDIAN: "Explicit VR Little Endian",
    IMPLICIT_VR_LITTLE_ENDIAN: "Implicit VR Little Endian",
}
ENCAPSULATED: Final = {  # PS3.5 section A.4; the header is in Explicit VR Little Endian
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
TRANSFER_SYNTAXES: Final = NATIVE | ENCAPSULATED
