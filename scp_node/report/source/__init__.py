"""The header of a received image, and the attributes that are taken over from it."""
