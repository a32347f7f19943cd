"""The benches as fixtures."""

from tests.adapters.mounts.bench import bench, real

__all__ = ["bench", "real"]
