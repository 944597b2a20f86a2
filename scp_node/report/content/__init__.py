"""What they say: the tree of a report, its measurements, regions and sentences."""
