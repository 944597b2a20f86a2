"""Where the opacities lie: a detector of boxes, from its training to its figures."""
