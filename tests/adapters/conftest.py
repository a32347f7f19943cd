"""A real Postgres for the tests of adapters, the journal on it beside the simulated one, and runners of steps."""

from tests.adapters.journals import bench, real, simulated
from tests.adapters.postgres.database import database, server
from tests.adapters.steps import step_bench

__all__ = ["bench", "database", "real", "server", "simulated", "step_bench"]
