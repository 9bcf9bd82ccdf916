"""Alembic's entry: online only, on the connection that `app.core.migrations` hands over."""

from alembic import context


def run() -> None:
    connection = context.config.attributes["connection"]
    metadata = context.config.attributes.get("metadata")
    context.configure(
        connection=connection, target_metadata=metadata, compare_type=True, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


run()
