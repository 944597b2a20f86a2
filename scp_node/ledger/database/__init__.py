"""The database below the ledger: engine, schema, revision, migrations and errors."""
