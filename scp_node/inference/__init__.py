"""The model that the node serves, and how the loops see it."""
