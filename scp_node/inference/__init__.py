"""The model that the node serves, and the protocols through which the loops use it."""
