"""Decides whether an image is within the intended use, and prepares the network's input from it."""
