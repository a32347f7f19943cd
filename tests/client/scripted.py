"""A link that answers by a script, and time that passes only when somebody waits."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from amends_client import Client, client_of
from amends_client.calls import Chance
from amends_client.errors import NoEvents
from amends_client.link import Silence

Answer = dict[str, Any] | Silence


class Asked:
    """One request as it was sent."""

    def __init__(self, subject: str, data: Any, headers: Mapping[str, str], timeout_s: float) -> None:
        self.subject, self.data, self.headers, self.timeout_s = subject, data, headers, timeout_s

    @property
    def key(self) -> str | None:
        return self.headers.get("Idempotency-Key")


class Script:
    """What is answered, one after the other; the last answer again and again. `told` are events, None ends them."""

    def __init__(self, *answers: Answer, readable: bool = True) -> None:
        self._answers, self._readable = list(answers), readable
        self.asked: list[Asked] = []
        self.told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.followed: list[tuple[str, bool]] = []
        self.now, self.slept = 0.0, list[float]()
        self.after: Callable[[Asked], None] = lambda asked: None  # what happens once a request was answered

    async def request(self, subject: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> bytes:
        asked = Asked(subject.removeprefix("amends.v1."), body, headers, timeout_s)
        self.asked.append(asked)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        self.after(asked)
        if isinstance(answer, Silence):
            self.now += timeout_s
            raise answer
        return json.dumps(answer).encode()

    async def follow(self, subject: str, *, latest: bool = False) -> AsyncGenerator[bytes]:
        self.followed.append((subject, latest))
        if not self._readable:
            raise NoEvents("not here")
        while True:
            yield json.dumps(await self.told.get()).encode()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def client(self, **options: Any) -> Client:
        """A client over this link, in this time."""
        chance = Chance(seed=1)
        chance.now, chance.sleep = lambda: self.now, self.sleep
        return client_of(self, chance=chance, **options)


def ok(**data: Any) -> dict[str, Any]:
    """A good reply."""
    return {"ok": True, "request_id": "req_1", "trace_id": "a" * 32, "duplicate": False, "data": data}


def no(code: str, http: int, **details: Any) -> dict[str, Any]:
    """A refusal, retryable as the reference has it."""
    error = {"code": code, "http": http, "message": "no", "retryable": http in (429, 503, 504), "details": details}
    return {"ok": False, "request_id": "req_1", "trace_id": "a" * 32, "error": error}


def rental(state: str, **more: Any) -> dict[str, Any]:
    """The row of a rental."""
    return {"allocation_id": "alloc_1", "account_id": "acme", "state": state, **more}
