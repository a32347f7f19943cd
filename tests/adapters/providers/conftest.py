"""Providers of all kinds, and the directories of a storage host."""

from tests.adapters.providers.benches import bench, holding
from tests.adapters.providers.hosts import clock, directories

__all__ = ["bench", "clock", "directories", "holding"]
