"""Alembic's entry point: runs on the connection that `scp_node.ledger.database.revision.upgrade` hands over."""

from alembic import context

from scp_node.ledger.database.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
