"""Composes the processes of the node, one module for each role: settings in, loops out."""
