"""A real Postgres for the test that compares the pages with a migrated database."""

from tests.adapters.postgres.database import database, server

__all__ = ["database", "server"]
