"""Errors of a runtime, apart from it: who catches them need not load it."""

from __future__ import annotations


class BackendError(Exception):
    """The requested runtime or device is missing, or gave no usable numbers."""
