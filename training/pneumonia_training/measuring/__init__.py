"""Measures networks: figures with intervals, baselines, probes, and comparisons."""
