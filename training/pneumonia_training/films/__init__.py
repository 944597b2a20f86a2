"""Films and labels: what there is, what is wrong with it, and how it becomes inputs."""
