"""Bytes of the standard: no socket, no SQL."""
