"""One conversation with the runtime over NATS: requests, replies, and errors by whose turn it is.

The client's library is imported when there is something to ask: help and refusals do without.
"""
# ruff: noqa: PLC0415

import asyncio
import json
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from adapters.cli.settings import Connection
from amends.values.inboxes import inbox_prefix

if TYPE_CHECKING:
    from nats.aio.client import Client

PREFIX: Final = "amends.v1."
CONNECT_WITHIN_S: Final = 5.0
PAGE: Final = 500  # the most that a list gives at once
WHOLE_ID: Final = 30  # characters; no minted id is shorter
ID_COLUMNS: Final = {"ops_case": "case_id", "ledger_entry": "entry_id", "recovery_run": "recovery_id",
                     "recovery_action": "action_id", "audit_log": "audit_id"}  # fmt: skip

# What to do about an error, by its code; `retryable` ones are sent again with the same key.
ADVICE: Final = {
    "unauthenticated": "give --token or AMENDS_TOKEN (with [operators] no state directory has one: AMENDS_TOKEN=$(cat "
    "operator.token) after `amends init`), or --state-dir of the local runtime",
    "forbidden": "this token may not do that; use one of role operator, or of that account",
    "not_found": "look for it with `list`",
    "already_exists": "look at it with `show`",
    "illegal_transition": "look at its state with `amends why`",
    "debt_open": "settle it first: `amends why` names the command",
    "version_mismatch": "look again: it has changed meanwhile",
    "idempotency_mismatch": "this --key was used for another request; take another one",
    "internal": "look into the runtime's log",
}


class Refused(Exception):
    """The runtime said no. `error` is the error object of its reply."""

    def __init__(self, error: dict[str, Any], key: str) -> None:
        super().__init__(str(error.get("message", "")))
        self.code = str(error.get("code", "internal"))
        self.advice = ADVICE.get(self.code, "")
        if error.get("retryable"):
            self.advice = "try again" + (f" with --key {key}: nothing is done twice" if key else "")


class Unreachable(Exception):
    """Nobody answers; the message says what may have happened and what to do."""


class Api:
    """The runtime as it is asked; made by `connected`."""

    def __init__(self, client: "Client", settings: Connection, timeout_s: float) -> None:
        self._client, self._settings, self._timeout_s = client, settings, timeout_s

    async def ask(self, subject: str, data: dict[str, Any]) -> dict[str, Any]:
        """The data of the reply to a question. Raises `Refused` or `Unreachable`."""
        return (await self._request(subject, data, {}, ""))["data"] or {}

    async def command(
        self, subject: str, data: dict[str, Any], *, key: str = "", expected_version: int | None = None
    ) -> dict[str, Any]:
        """The whole reply to a command. Raises `Refused` or `Unreachable`."""
        key = key or secrets.token_hex(16)
        headers = {"Idempotency-Key": key}
        if expected_version is not None:
            headers["Expected-Version"] = str(expected_version)
        return await self._request(subject, data, headers, key)

    async def rows(self, table: str, *, limit: int = 100, **filters: Any) -> list[dict[str, Any]]:
        """The first rows of a kind of entity that match, in the order of their ids: the oldest."""
        return list((await self.ask(f"qry.{table}.list", {**filters, "limit": limit}))["items"])

    async def newest(
        self, table: str, keep: int, is_open: Callable[[dict[str, Any]], bool], **filters: Any
    ) -> tuple[list[dict[str, Any]], int]:
        """The newest `keep` rows that match and every older one that is still open; how many others there are.

        Lists go from the oldest on, so all pages are read; what is not shown is not kept.
        """
        older: list[dict[str, Any]] = []
        newest: deque[dict[str, Any]] = deque(maxlen=keep)
        seen, question = 0, {**filters, "limit": PAGE}
        while True:
            page = await self.ask(f"qry.{table}.list", question)
            for row in page["items"]:
                seen += 1
                if len(newest) == keep and is_open(newest[0]):
                    older.append(newest[0])
                newest.append(row)
            if not page.get("cursor"):
                break
            question["cursor"] = page["cursor"]
        return [*older, *newest], seen - len(older) - len(newest)

    async def named(self, entity: str, identifier: str) -> str:
        """The id that begins so, where there is exactly one; else what was given. Raises `Refused` for several."""
        if len(identifier) >= WHOLE_ID or "_" not in identifier:
            return identifier
        page = await self.ask(f"qry.{entity}.list", {"id_prefix": identifier, "limit": 2})
        column = ID_COLUMNS.get(entity, f"{entity}_id")
        found = [str(row[column]) for row in page["items"]]
        if len(found) > 1 and identifier not in found:
            raise Refused({"code": "not_found", "message": f"{identifier} begins more than one id: {found[0]}, …"}, "")
        return found[0] if len(found) == 1 else identifier

    async def row(self, entity: str, identifier: str) -> dict[str, Any] | None:
        """One row, None if there is none."""
        try:
            return await self.ask(f"qry.{entity}.get", {"id": identifier})
        except Refused as error:
            if error.code == "not_found":
                return None
            raise

    async def _request(self, subject: str, data: dict[str, Any], headers: dict[str, str], key: str) -> dict[str, Any]:
        from nats.errors import Error as NatsError
        from nats.errors import NoRespondersError

        if self._settings.token:
            headers["Authorization"] = f"Bearer {self._settings.token}"
        again = f"; it may have been done: send it again with --key {key}" if key else ""
        try:
            message = await self._client.request(
                PREFIX + subject, json.dumps(data).encode(), timeout=self._timeout_s, headers=headers or None
            )
            reply: dict[str, Any] = json.loads(message.data)
            if not reply["ok"]:
                raise Refused(reply["error"], key)
            _ = reply["data"]
        except NoRespondersError:
            raise Unreachable(
                f"no runtime answers {subject} at {self._settings.place}; start `amends run`, or wait for a take-over"
            ) from None
        except TimeoutError:
            raise Unreachable(f"no answer to {subject} within {self._timeout_s:g} s{again}") from None
        except (NatsError, OSError) as error:
            raise Unreachable(f"the connection to NATS was lost: {error}{again}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unreachable(f"the answer to {subject} cannot be understood{again}") from error
        return reply


@asynccontextmanager
async def connected(settings: Connection, timeout_s: float) -> AsyncIterator[Api]:
    """A connection for a few requests. Raises `Unreachable`."""
    from nats.aio.client import Client
    from nats.errors import Error as NatsError

    async def quiet(error: Exception) -> None:
        """What matters is raised to whoever asked."""

    client = Client()
    try:
        async with asyncio.timeout(CONNECT_WITHIN_S):
            await client.connect(
                list(settings.servers), name="amends-cli", connect_timeout=2, max_reconnect_attempts=1,
                reconnect_time_wait=0, error_cb=quiet,
                inbox_prefix=inbox_prefix(settings.options.get("user", ""), settings.servers), **settings.options,
            )  # fmt: skip
    except ModuleNotFoundError as error:  # nats-py signs with credentials by a package that it does not bring
        raise Unreachable(f"credentials of NATS need the package {error.name}: pip install {error.name}") from None
    except (NatsError, OSError, TimeoutError, ValueError) as error:
        why = str(error) or type(error).__name__
        raise Unreachable(f"NATS cannot be reached at {settings.place}: {why}") from error
    try:
        yield Api(client, settings, timeout_s)
    finally:
        await client.close()
