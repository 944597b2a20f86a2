"""The objects that are written, one module each."""
