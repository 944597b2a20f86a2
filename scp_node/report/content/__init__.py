"""The content of the objects: the tree of a report, its measurements, regions and sentences."""
