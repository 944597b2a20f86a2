"""The life of a process: supervised, with a heartbeat, patient with its database, and with a log."""
