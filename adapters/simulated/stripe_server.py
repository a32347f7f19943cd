"""The simulated Stripe over HTTP: for tests, the demo and whoever has no account at Stripe. A program of its own too.

    python -m adapters.simulated.stripe_server --webhook ADDRESS --secret whsec_current --secret whsec_previous

It prints one line of JSON when it listens (`url`, `control_url`, `pid`) and ends with SIGTERM. `/_sim/…` is answered
under both addresses; the second is there also while the first refuses connections. With `--state FILE` it goes on
where it ended; the file is at most `KEEP_S` behind.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from adapters.simulated.stripe_book import API_KEY, State
from adapters.simulated.stripe_control import COMMANDS, QUESTIONS
from adapters.simulated.stripe_errors import Refusal, Reply, Request
from adapters.simulated.stripe_params import nested
from adapters.simulated.stripe_routes import new_book
from adapters.simulated.stripe_webhooks import Endpoint, Webhooks

KEEP_S: Final = 0.2
MAX_BODY: Final = 1 << 20
STOP_S: Final = 0.2


class StripeSimulator:
    """`url` is what a client takes as the API's base; `book` and `webhooks` may be told what to do directly."""

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 0, api_key: str = API_KEY, endpoints: Sequence[Endpoint] = (),
        file: Path | None = None,
    ) -> None:  # fmt: skip
        kept = msgspec.json.decode(file.read_bytes(), type=State) if file is not None and file.exists() else None
        self.book, self.webhooks = new_book(time.time, api_key, kept), Webhooks()
        self.webhooks.endpoints = list(endpoints)
        self.book.listeners.append(self.webhooks.follow)
        self._host, self._port, self._file = host, port, file
        self._api: web.AppRunner | None = None
        self._control: web.AppRunner | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.url = self.control_url = ""

    async def start(self) -> None:
        """Listen; raises `OSError` when the address cannot be had."""
        self._control, port = await self._listen(0)
        self.control_url = f"http://{self._host}:{port}"
        await self.accept()
        if self._file is not None:
            self._keep(self._file)
            self._keeper = asyncio.create_task(self._keep_on(self._file))

    async def stop(self) -> None:
        """Stop listening; what is kept is whole."""
        await self.webhooks.close()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        await self.refuse()
        if self._control is not None:
            await self._control.cleanup()
            self._control = None
        if self._file is not None:
            self._keep(self._file)

    async def refuse(self) -> None:
        """Connections are refused, and those that are open are gone, until `accept`."""
        runner, self._api = self._api, None
        if runner is not None:
            for connection in runner.server.connections if runner.server is not None else ():
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()

    async def accept(self) -> None:
        """Listen again, on the same port."""
        if self._api is None:
            self._api, self._port = await self._listen(self._port)
            self.url = f"http://{self._host}:{self._port}"

    async def _listen(self, port: int) -> tuple[web.AppRunner, int]:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/_sim/{name}", self._command)
        app.router.add_get("/_sim/{name}", self._question)
        app.router.add_route("*", "/{path:.*}", self._request)
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=STOP_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, port, reuse_address=True).start()
        except OSError:
            await runner.cleanup()
            raise
        return runner, runner.addresses[0][1]

    # --- Stripe's API --------------------------------------------------------------------------------

    async def _request(self, asked: web.Request) -> web.Response:
        scheme, _, token = asked.headers.get("Authorization", "").partition(" ")
        try:
            pairs = [(name, str(value)) for name, value in (*asked.query.items(), *(await asked.post()).items())]
            params = nested(pairs)
        except Refusal as refusal:
            return _answer(Reply(refusal.status, refusal.body))
        key = asked.headers.get("Idempotency-Key", "")
        request = Request(asked.method, asked.path, params, key, token if scheme.lower() == "bearer" else "")
        begun = self.book.begin(request)
        if isinstance(begun, Reply):
            return _answer(begun)
        try:
            await asyncio.sleep(begun.delay_s)
        finally:  # who hangs up has not undone what was sent
            reply = self.book.finish(begun)
        if reply is None:
            if asked.transport is not None:
                asked.transport.abort()
            return web.Response(status=500)
        return _answer(reply)

    # --- control -------------------------------------------------------------------------------------

    async def _command(self, asked: web.Request) -> web.Response:
        shape, do = COMMANDS.get(asked.match_info["name"], (None, None))
        if shape is None or do is None:
            return _json({"error": f"no such command; there are {', '.join(COMMANDS)}"}, 404)
        try:
            body = msgspec.json.decode(await asked.read() or b"{}", type=shape)
            return _json({"ok": True, "data": await do(self, body)})
        except msgspec.MsgspecError as error:
            return _json({"error": str(error)}, 400)
        except Refusal as refusal:
            return _json({"error": str(refusal)}, 400)

    async def _question(self, asked: web.Request) -> web.Response:
        question = QUESTIONS.get(asked.match_info["name"])
        if question is None:
            return _json({"error": f"no such question; there are {', '.join(QUESTIONS)}"}, 404)
        return _json(question(self))

    # --- what is kept --------------------------------------------------------------------------------

    async def _keep_on(self, file: Path) -> None:
        kept = self.book.changes
        while True:
            await asyncio.sleep(KEEP_S)
            if self.book.changes != kept:
                kept = self.book.changes
                self._keep(file)

    def _keep(self, file: Path) -> None:
        part = file.with_name(f"{file.name}.new")
        part.write_bytes(msgspec.json.encode(self.book.state()))
        part.replace(file)


def _answer(reply: Reply) -> web.Response:
    return _json(reply.body, reply.status, reply.headers)


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, headers=headers, content_type="application/json")


# --- the program -------------------------------------------------------------------------------------


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m adapters.simulated.stripe_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="where it listens; there is no protection but the API key")
    parser.add_argument("--port", type=int, default=0, help="0: one that is free")
    parser.add_argument("--api-key", default=API_KEY, help="the one key that it takes")
    parser.add_argument("--webhook", action="append", default=[], help="who is told of events; may be repeated")
    parser.add_argument("--secret", action="append", default=[], help="of webhooks: the current one, then the previous")
    parser.add_argument("--state", type=Path, help="a file for what it keeps")
    return parser.parse_args(arguments)


async def _serve(options: argparse.Namespace) -> None:
    endpoints = [Endpoint(url, options.secret or ["whsec_simulated"]) for url in options.webhook]
    simulator = StripeSimulator(
        host=options.host, port=options.port, api_key=options.api_key, endpoints=endpoints, file=options.state
    )
    await simulator.start()
    said = {"url": simulator.url, "control_url": simulator.control_url, "pid": os.getpid()}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
    await simulator.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; returns the exit status."""
    options = _options(arguments)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(options))
    except OSError as error:
        sys.stderr.write(f"stripe_server: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
