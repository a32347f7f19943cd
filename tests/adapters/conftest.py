"""A real Postgres for the tests of adapters, and the journal on it beside the simulated one."""

from tests.adapters.journals import bench, real, simulated
from tests.adapters.postgres.database import database, server

__all__ = ["bench", "database", "real", "server", "simulated"]
