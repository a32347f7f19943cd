"""The demo: a real runtime in a process of its own, a fleet of machines in another, and everything that breaks."""

from supervisors.demo.story import demo

__all__ = ["demo"]
