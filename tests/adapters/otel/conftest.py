"""A real Postgres for the tests of this folder."""

from tests.adapters.postgres.database import database, server

__all__ = ["database", "server"]
