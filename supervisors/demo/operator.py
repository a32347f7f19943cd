"""The demo's operator: a command is shown as a person would type it, and run."""

import asyncio
import shlex
import sys

from supervisors.demo.site import DemoFailed, Site
from supervisors.demo.teller import Teller


async def types(site: Site, tell: Teller, *argv: str) -> None:
    """`amends argv`, shown so that it can be typed again where the state stays. Raises `DemoFailed` when refused."""
    place = ("--state-dir", str(site.state_dir))
    await tell.command(shlex.join(["amends", *argv, *(place if site.stays else ())]))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "supervisors.boot", *argv, *place, stdout=asyncio.subprocess.DEVNULL
    )
    if await process.wait() != 0:
        raise DemoFailed(f"the operator's command was refused: {shlex.join(argv)}")
