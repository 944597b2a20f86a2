"""DICOM audit messages (PS3.15 A.5): what events of the trail say in them, and the collector that gets them."""
