"""The journal on a real Postgres beside the simulated one, and runners of steps of all kinds."""

from tests.adapters.journals import bench, real, simulated
from tests.adapters.steps import step_bench

__all__ = ["bench", "real", "simulated", "step_bench"]
