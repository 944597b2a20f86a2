"""How a process lives: supervised, with signs of life, patient with its database, and with a log."""
