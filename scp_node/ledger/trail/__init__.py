"""The trail of events: what they say, the hash chain that binds them, and where each came from."""
