"""A real Postgres for the tests of adapters."""

from tests.adapters.postgres.database import database, server

__all__ = ["database", "server"]
