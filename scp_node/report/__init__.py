"""The report of a study as a DICOM Structured Report: values in, bytes out; no sockets, no SQL."""

from scp_node.report.kinds import ObjectKind
from scp_node.report.objects.key_object import build_key_object
from scp_node.report.objects.overlay import build_overlay
from scp_node.report.objects.presentation_state import build_presentation_state
from scp_node.report.objects.segmentation import build_segmentation
from scp_node.report.objects.sr import build_report, warm_up
from scp_node.report.objects.text_sr import build_text_report
from scp_node.report.objects.trial import build_trial_report
from scp_node.report.site import Site
from scp_node.report.sop_class import COMPANION_SOP_CLASSES, SOP_CLASSES, with_sop_class
from scp_node.report.source.source import UnreportableHeader
from scp_node.report.version import ReportVersion

__all__ = [
    "COMPANION_SOP_CLASSES",
    "SOP_CLASSES",
    "ObjectKind",
    "ReportVersion",
    "Site",
    "UnreportableHeader",
    "build_key_object",
    "build_overlay",
    "build_presentation_state",
    "build_report",
    "build_segmentation",
    "build_text_report",
    "build_trial_report",
    "warm_up",
    "with_sop_class",
]
