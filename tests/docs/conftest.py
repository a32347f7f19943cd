"""A real Postgres for the test that compares the pages with a migrated database."""

from tests.adapters.postgres.database import database, empty, server, template

__all__ = ["database", "empty", "server", "template"]
