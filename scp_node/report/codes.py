"""Every coded concept of our reports, once, with the table of the standard that it comes from.

Plain values, not imports from `pydicom.sr.codedict`: a pinned release cannot change what we say, and a test compares
each with that dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from scp_node.domain import Completion, Verdict


class Concept(NamedTuple):
    """A coded concept: Code Value, Coding Scheme Designator, Code Meaning (PS3.3 Section 8)."""

    value: str
    scheme: str
    meaning: str


# PS3.16 TID 1500 Measurement Report
IMAGING_MEASUREMENT_REPORT: Final = Concept("126000", "DCM", "Imaging Measurement Report")  # CID 7021
PROCEDURE_REPORTED: Final = Concept("121058", "DCM", "Procedure reported")
# CID 100: what we say without a procedure code
IMAGING_PROCEDURE: Final = Concept("363679005", "SCT", "Imaging procedure")
IMAGING_MEASUREMENTS: Final = Concept("126010", "DCM", "Imaging Measurements")
QUALITATIVE_EVALUATIONS: Final = Concept("C0034375", "UMLS", "Qualitative Evaluations")
COMMENT: Final = Concept("121106", "DCM", "Comment")
CONCLUSION: Final = Concept("121077", "DCM", "Conclusion")

# TID 2000 Basic Diagnostic Imaging Report
DIAGNOSTIC_IMAGING_REPORT: Final = Concept("18748-4", "LN", "Diagnostic Imaging Report")  # CID 7000
CONCLUSIONS: Final = Concept("121076", "DCM", "Conclusions")  # CID 7001
FINDINGS: Final = Concept("121070", "DCM", "Findings")

# TID 2010 Key Object Selection
OF_INTEREST: Final = Concept("113000", "DCM", "Of Interest")  # CID 7010
KEY_OBJECT_DESCRIPTION: Final = Concept("113012", "DCM", "Key Object Description")

# Segmentation: CID 7150 Segmentation Property Category, CID 7162 Algorithm Family, CID 7203 Image Derivation
MORPHOLOGICALLY_ABNORMAL: Final = Concept("49755003", "SCT", "Morphologically Abnormal Structure")
ARTIFICIAL_INTELLIGENCE: Final = Concept("123110", "DCM", "Artificial Intelligence")
SEGMENTATION: Final = Concept("113076", "DCM", "Segmentation")

# TID 1204 Language of Content Item and Descendants
LANGUAGE: Final = Concept("121049", "DCM", "Language of Content Item and Descendants")
ENGLISH: Final = Concept("en-US", "RFC5646", "English (United States)")  # CID 5000

# TID 1002 Observer Context, TID 1004 Device Observer Identifying Attributes
OBSERVER_TYPE: Final = Concept("121005", "DCM", "Observer Type")
DEVICE: Final = Concept("121007", "DCM", "Device")  # CID 270
DEVICE_OBSERVER_UID: Final = Concept("121012", "DCM", "Device Observer UID")
DEVICE_OBSERVER_NAME: Final = Concept("121013", "DCM", "Device Observer Name")
DEVICE_OBSERVER_MANUFACTURER: Final = Concept("121014", "DCM", "Device Observer Manufacturer")
DEVICE_OBSERVER_MODEL_NAME: Final = Concept("121015", "DCM", "Device Observer Model Name")
DEVICE_OBSERVER_SERIAL_NUMBER: Final = Concept("121016", "DCM", "Device Observer Serial Number")

# TID 1600 Image Library, TID 1602 and TID 1603 its entries
IMAGE_LIBRARY: Final = Concept("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP: Final = Concept("126200", "DCM", "Image Library Group")
SOURCE: Final = Concept("260753009", "SCT", "Source")
MODALITY: Final = Concept("121139", "DCM", "Modality")
STUDY_DATE: Final = Concept("111060", "DCM", "Study Date")
IMAGE_VIEW: Final = Concept("111031", "DCM", "Image View")
PIXEL_DATA_ROWS: Final = Concept("110910", "DCM", "Pixel Data Rows")
PIXEL_DATA_COLUMNS: Final = Concept("110911", "DCM", "Pixel Data Columns")
PATIENT_ORIENTATION_ROW: Final = Concept("111044", "DCM", "Patient Orientation Row")
PATIENT_ORIENTATION_COLUMN: Final = Concept("111043", "DCM", "Patient Orientation Column")
HORIZONTAL_PIXEL_SPACING: Final = Concept("111026", "DCM", "Horizontal Pixel Spacing")
VERTICAL_PIXEL_SPACING: Final = Concept("111066", "DCM", "Vertical Pixel Spacing")

# TID 1501 Measurement and Qualitative Evaluation Group, TID 300 Measurement, TID 320 Image or Spatial Coordinates
MEASUREMENT_GROUP: Final = Concept("125007", "DCM", "Measurement Group")
TRACKING_IDENTIFIER: Final = Concept("112039", "DCM", "Tracking Identifier")
TRACKING_UNIQUE_IDENTIFIER: Final = Concept("112040", "DCM", "Tracking Unique Identifier")
FINDING: Final = Concept("121071", "DCM", "Finding")
FINDING_SITE: Final = Concept("363698007", "SCT", "Finding Site")
PROBABILITY: Final = Concept("122157", "DCM", "Probability")
SOURCE_OF_MEASUREMENT: Final = Concept("121112", "DCM", "Source of Measurement")
IMAGE_REGION: Final = Concept("111030", "DCM", "Image Region")  # TID 1410 Planar ROI Measurements
OPACITY: Final = Concept("112001", "DCM", "Opacity")  # CID 6102
CERTAINTY_OF_FINDING: Final = Concept("111012", "DCM", "Certainty of Finding")  # a device's, 0 to 100 %
SUMMARY_OF_DETECTIONS: Final = Concept("111064", "DCM", "Summary of Detections")

# What is looked for, and where. (233604007, SCT) is in no context group of the standard: Finding is open there.
PNEUMONIA: Final = Concept("233604007", "SCT", "Pneumonia")
LUNG: Final = Concept("39607008", "SCT", "Lung")

# TID 4019 Algorithm Identification
ALGORITHM_NAME: Final = Concept("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION: Final = Concept("111003", "DCM", "Algorithm Version")
ALGORITHM_PARAMETERS: Final = Concept("111002", "DCM", "Algorithm Parameters")
ALGORITHM_MANUFACTURER: Final = Concept("122405", "DCM", "Algorithm Manufacturer")

# CID 240 Present-Absent-Undetermined
VERDICTS: Final[Mapping[Verdict, Concept]] = {
    Verdict.PRESENT: Concept("52101004", "SCT", "Present"),
    Verdict.NOT_DETECTED: Concept("272519000", "SCT", "Absent"),
    Verdict.UNDETERMINED: Concept("373068000", "SCT", "Undetermined"),
}

# CID 6042 Status of Results
PARTIALLY_SUCCEEDED: Final = Concept("111223", "DCM", "Partially Succeeded")
COMPLETIONS: Final[Mapping[Completion, Concept]] = {
    Completion.SUCCEEDED: Concept("111222", "DCM", "Succeeded"),
    Completion.FAILED: Concept("111224", "DCM", "Failed"),
    Completion.NOT_ATTEMPTED: Concept("111225", "DCM", "Not Attempted"),
}

# CID 42 Numeric Value Qualifier: why a measurement has no value
QUALIFIERS: Final[Mapping[Completion, Concept]] = {
    Completion.FAILED: Concept("114006", "DCM", "Measurement failure"),
    Completion.NOT_ATTEMPTED: Concept("114007", "DCM", "Measurement not attempted"),
}

# CID 29 Acquisition Modality, by Modality (0008,0060)
MODALITIES: Final[Mapping[str, Concept]] = {
    "CR": Concept("CR", "DCM", "Computed Radiography"),
    "DX": Concept("DX", "DCM", "Digital Radiography"),
}

# CID 4010 DX View, by View Position (0018,5101)
VIEWS: Final[Mapping[str, Concept]] = {
    "PA": Concept("272479007", "SCT", "postero-anterior"),
    "AP": Concept("399348003", "SCT", "antero-posterior"),
    "LL": Concept("399173006", "SCT", "left lateral"),
    "RL": Concept("399198007", "SCT", "right lateral"),
}

# Units, UCUM
PERCENT: Final = Concept("%", "UCUM", "Percent")
PIXELS: Final = Concept("{pixels}", "UCUM", "Pixels")
MILLIMETER: Final = Concept("mm", "UCUM", "mm")

# CID 7005 Contributing Equipment Purpose of Reference
ACQUISITION_EQUIPMENT: Final = Concept("109101", "DCM", "Acquisition Equipment")
PROCESSING_EQUIPMENT: Final = Concept("109102", "DCM", "Processing Equipment")

# CID 7202 Source Image Purpose of Reference
SOURCE_IMAGE: Final = Concept("121322", "DCM", "Source image for image processing operation")
