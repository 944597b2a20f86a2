"""Films and labels: the list of films, its problems, and the way from a film to an input."""
