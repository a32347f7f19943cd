"""A real Postgres for the tests of this folder."""

from tests.adapters.postgres.database import database, empty, server, template

__all__ = ["database", "empty", "server", "template"]
