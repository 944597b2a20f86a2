"""What each process of the node is composed of: settings in, loops out."""
