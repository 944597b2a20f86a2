"""Bytes of the standard, without sockets and without SQL."""
