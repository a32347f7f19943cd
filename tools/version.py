"""Which commit this is."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]


@cache
def commit(root: Path = ROOT) -> str:
    """Its whole name; "" where this is no repository."""
    ended = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)  # noqa: S607
    return ended.stdout.strip() if ended.returncode == 0 else ""
