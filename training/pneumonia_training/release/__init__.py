"""From a trained network to a bundle with its cards."""
