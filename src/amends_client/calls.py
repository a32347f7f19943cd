"""One call: sent, sent again under the same key while that may help, and answered or refused by a deadline.

Knows neither NATS nor any subject.
"""

import asyncio
import json
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypedDict

import msgspec
from msgspec import Struct

from amends_client.errors import Refused, Unreachable
from amends_client.link import PREFIX, Link, Silence

DEADLINE_S: Final = 30.0
ATTEMPT_S: Final = 5.0  # then it is sent again: whoever was asked may be gone
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0
THROTTLED: Final = 429  # the one retryable refusal that says for certain that nothing was done
INTERNAL: Final = 500


class CommandOptions(TypedDict, total=False):
    """What every command takes beside its fields.

    `key`: its Idempotency-Key, 1 to 128 printable characters (ValueError for none); a fresh random one if left out.
    `deadline_s`: how long it is sent again, instead of the client's. `expected_version`: refused (409
    `version_mismatch`) if the row has another.
    """

    key: str
    deadline_s: float
    expected_version: int


class Failure(Struct, frozen=True):
    """The error object of a reply."""

    code: str
    http: int
    message: str
    retryable: bool = False
    details: dict[str, Any] = {}


class Reply(Struct, frozen=True):
    """A reply. `duplicate`: it is the first reply to that key, once more."""

    ok: bool
    request_id: str = ""
    trace_id: str = ""
    duplicate: bool = False
    data: dict[str, Any] | None = None
    error: Failure | None = None

    def refusal(self) -> Refused:
        """The error to raise."""
        said = self.error or Failure("internal", 500, "a refusal without its error")
        return Refused(said.code, said.http, said.message, said.details, self.request_id, self.trace_id)


class Chance:
    """Time and chance, which a test replaces."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311 - spreads tries out; keys come from `secrets`

    now: Callable[[], float] = staticmethod(time.monotonic)
    sleep: Callable[[float], Awaitable[None]] = staticmethod(asyncio.sleep)

    def pause_s(self, tries: int) -> float:
        """The wait after so many tries: doubled each time up to a cap, of that between a half and the whole."""
        longest: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(tries - 1, 10))
        return longest * self._random.uniform(0.5, 1.0)


def given(**fields: Any) -> dict[str, Any]:
    """The fields that are not None: those left out are not sent."""
    return {name: value for name, value in fields.items() if value is not None}


class Calls:
    """Sends them. `deadline_s`: of a call that names none."""

    def __init__(
        self, link: Link, token: str = "", deadline_s: float = DEADLINE_S, chance: Chance | None = None
    ) -> None:
        self.link, self.chance = link, chance or Chance()
        self._token, self._deadline_s = token, deadline_s

    async def command(self, subject: str, data: Mapping[str, Any], options: CommandOptions) -> Reply:
        """The reply to a command. Raises `Refused` or `Unreachable`, and ValueError for an empty key."""
        key = options.get("key")
        if key == "":  # of a caller who believes to have one; a fresh one would let the same be done twice
            raise ValueError("key is empty: give 1 to 128 printable characters, or leave it out for a random one")
        key = key or secrets.token_hex(16)
        headers = {"Idempotency-Key": key}
        if "expected_version" in options:
            headers["Expected-Version"] = str(options["expected_version"])
        return await self._answered(subject, _json(data), headers, key, options.get("deadline_s"), ATTEMPT_S)

    async def ask(
        self, subject: str, data: Mapping[str, Any], deadline_s: float | None = None, *, long: bool = False
    ) -> dict[str, Any]:
        """The data of the answer to a question; a `long` one is sent once and waited for. Raises as `command`."""
        attempt_s = float("inf") if long else ATTEMPT_S
        return (await self._answered(subject, _json(data), {}, "", deadline_s, attempt_s)).data or {}

    async def raw(self, subject: str, body: bytes, headers: Mapping[str, str], deadline_s: float | None) -> Reply:
        """The reply to a body as it is. Raises as `command`."""
        return await self._answered(subject, body, headers, "", deadline_s, ATTEMPT_S)

    async def _answered(
        self, subject: str, body: bytes, headers: Mapping[str, str], key: str, deadline_s: float | None,
        attempt_s: float,
    ) -> Reply:  # fmt: skip
        if self._token:
            headers = {**headers, "Authorization": f"Bearer {self._token}"}
        chance, tries, throttled = self.chance, 0, True
        end = chance.now() + (self._deadline_s if deadline_s is None else deadline_s)
        while True:
            tries += 1
            try:
                timeout_s = max(0.001, min(end - chance.now(), attempt_s))
                reply = _reply(await self.link.request(PREFIX + subject, body, headers, timeout_s))
            except Silence as silence:
                refusal, why, pause = None, str(silence), chance.pause_s(tries)
            else:
                if reply.ok:
                    return reply
                refusal = reply.refusal()
                if key and refusal.http == INTERNAL:  # whether it was done the runtime itself does not know
                    raise Unreachable(subject, str(refusal), key)
                if reply.error is None or not reply.error.retryable:
                    raise refusal
                why = str(refusal)
                pause = max(chance.pause_s(tries), refusal.details.get("retry_after_ms", 0) / 1000)
            throttled = throttled and refusal is not None and refusal.http == THROTTLED
            if chance.now() + pause >= end:
                if throttled and refusal is not None:
                    raise refusal
                raise Unreachable(subject, f"{why} (tried {tries} times)", key)
            await chance.sleep(pause)


def _json(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, default=msgspec.to_builtins).encode()


def _reply(body: bytes) -> Reply:
    try:
        return msgspec.json.decode(body, type=Reply)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Silence(f"the answer cannot be understood: {error}") from error
