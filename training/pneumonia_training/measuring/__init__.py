"""What a network is worth: figures with intervals, baselines, probes, and comparisons."""
