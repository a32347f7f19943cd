"""Every module of figures gives each figure that it declares, at a hundredth of its size: a number that can be."""

import asyncio
import json
import os
import sys
from importlib import import_module

import pytest

from tests.patience import PATIENCE_S

MODULES = ("memory", "fleet", "verdict", "resume", "rental")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
async def test_a_module_gives_each_figure_that_it_declares(name: str) -> None:
    module = f"benchmarks.figures.{name}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, "--scale", "0.01", stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONWARNINGS": ""},
    )  # fmt: skip
    try:
        async with asyncio.timeout(6 * PATIENCE_S):
            said, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaint.decode()[-3000:]
    rows = {row["name"]: row for row in map(json.loads, said.splitlines())}
    assert tuple(rows) == import_module(module).NAMES
    for row in rows.values():
        assert row["unit"]
        assert row["values"]
        assert all(0 < value < 1e7 for value in row["values"]), row
