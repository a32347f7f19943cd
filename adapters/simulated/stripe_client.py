"""The simulated Stripe as a process of its own, for the demo: started, asked over HTTP, ended.

What customers do goes to its API with the key; what goes wrong, and where webhooks go, to its control address.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from adapters.simulated.stripe_book import API_KEY
from amends.values.errors import Unavailable

PROGRAM: Final = "adapters.simulated.stripe_server"
READY_WITHIN_S: Final = 30.0
ANSWER_WITHIN_S: Final = 15.0
STOP_WITHIN_S: Final = 5.0


class StripeProcess:
    """A running simulator. `url` is the API's base. Make it with `StripeProcess.spawn`."""

    def __init__(self, process: asyncio.subprocess.Process, said: dict[str, Any]) -> None:
        self._process = process
        self.url, self._control = str(said["url"]), str(said["control_url"])
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S))

    @classmethod
    async def spawn(cls, state: Path, log_file: Path, prefix: Sequence[str] = ()) -> "StripeProcess":
        """Start it on what it kept in `state` and wait until it listens. Raises `Unavailable`.

        `prefix`: words before the program's, such as those that have it end with this process.
        """
        with log_file.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *prefix, sys.executable, "-m", PROGRAM, "--state", str(state),
                stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        assert process.stdout is not None
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                line = await process.stdout.readline()
            return cls(process, json.loads(line))
        except (TimeoutError, ValueError) as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise Unavailable(f"the simulated Stripe did not start; see {log_file}") from error

    async def deliver_to(self, url: str, secret: str) -> None:
        """Webhooks go there from now on, signed with that secret."""
        await self._ask(
            "POST", f"{self._control}/_sim/endpoints", json={"endpoints": [{"url": url, "secrets": [secret]}]}
        )

    async def tell(self, command: str, **fields: Any) -> Any:
        """A command of `stripe_control`."""
        return await self._ask("POST", f"{self._control}/_sim/{command}", json=fields)

    async def make(self, path: str, **fields: str) -> dict[str, Any]:
        """What a request of the API makes, such as `customers`; fields as Stripe's forms have them."""
        return dict(await self._ask("POST", f"{self.url}/v1/{path}", data=fields, headers=_KEY))

    async def list(self, path: str) -> list[dict[str, Any]]:
        """The first page of a list of the API."""
        return list((await self._ask("GET", f"{self.url}/v1/{path}", headers=_KEY))["data"])

    async def _ask(self, method: str, url: str, **options: Any) -> Any:
        try:
            async with self._http.request(method, url, **options) as answer:
                body = await answer.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Unavailable(f"the simulated Stripe: {method} {url}: {error}") from error
        if answer.status != 200:
            raise Unavailable(f"the simulated Stripe: {method} {url}: {body}")
        return body

    async def close(self) -> None:
        """End it, by SIGTERM first."""
        await self._http.close()
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


_KEY: Final = {"Authorization": f"Bearer {API_KEY}"}
