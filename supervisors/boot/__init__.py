"""Boot: the composition root and the `amends` program. Nothing imports it."""
# ruff: noqa: E402

from supervisors.late import load_late

load_late("aiohttp")

from supervisors.boot.program import main

__all__ = ["main"]
