"""The trail of events: their contents, the hash chain that binds them, and the source of each."""
