"""DICOM node that reads chest X-rays with a neural network and returns Structured Reports to the PACS."""

from importlib.metadata import version

__version__ = version("scp-node")
