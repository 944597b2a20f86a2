"""What is taken over from the header of an image."""
