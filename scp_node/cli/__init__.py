"""The command `scp-node`."""
