"""Boot: the composition root and the `amends` program. Nothing imports it."""

from supervisors.boot.program import main

__all__ = ["main"]
