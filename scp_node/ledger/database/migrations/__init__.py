"""Alembic migrations of the ledger: additive only, so that an older program can still read."""
