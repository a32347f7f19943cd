"""Providers of all kinds."""

from tests.adapters.providers.benches import bench

__all__ = ["bench"]
