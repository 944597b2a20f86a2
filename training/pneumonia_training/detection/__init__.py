"""The detector of opacities, from its training to its figures."""
