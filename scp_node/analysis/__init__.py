"""Decides whether an image is within the intended use, and prepares the network's input from it."""

from scp_node.analysis.analyse import analyse, analyse_file, conclude
from scp_node.analysis.eligibility import Equipment, assess_header
from scp_node.analysis.pixels import Picture, Prepared, prepare

__all__ = [
    "Equipment",
    "Picture",
    "Prepared",
    "analyse",
    "analyse_file",
    "assess_header",
    "conclude",
    "prepare",
]
