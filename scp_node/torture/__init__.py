"""Hostile conversations with a Storage SCP, and how a legitimate C-ECHO fares beside them."""
