"""Who is asking: bearer tokens of callers and operators, compared by hash; refusals are audited in bulk.

No token is ever logged, stored or audited, only its SHA-256 compared.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping

from amends.ports.journal import Turn
from amends.runtime.engine import Engine
from amends.runtime.identity import Headers, Identity
from amends.runtime.writer import Pending
from amends.values import ids
from amends.values.errors import Rejected
from amends.values.records import AuditDraft
from supervisors.settings import Operator, Settings

LOOK_S = 1.0  # how often refusals are looked at
ACTIONS = {
    "bad_signature": "payments.webhook.rejected",
    "unreadable_event": "payments.webhook.unreadable",
}  # of refusals that are no matter of tokens


def operators(settings: Settings, own_token: Callable[[], str]) -> tuple[dict[str, Operator], str]:
    """The configured operators, or one who has the token of this installation; and that token."""
    if settings.operators:
        return settings.operators, ""
    token = own_token()
    return {"local": Operator(token_sha256=_digest(token), role="operator")}, token


class Gatekeeper:
    """Answers who a request comes from; raises `Rejected` (401, 403)."""

    def __init__(self, settings: Settings, known: dict[str, Operator]) -> None:
        self._callers, self._operators = settings.known_callers, known
        self._refusals: Counter[tuple[str, str]] = Counter()
        self._written: dict[tuple[str, str], float] = {}  # when each had its last entry

    def __call__(self, headers: Headers, role: str) -> Identity:
        """The identity behind the headers, good for `role` (caller, reader, viewer, operator, signed)."""
        if role == "signed":
            return Identity("stripe", accounts=())
        token = _bearer(headers)
        if role in ("operator", "viewer"):
            return self._operator(token, role)
        if token and (name := self._match_operator(token)):
            if role == "caller" and self._operators[name].role != "operator":
                self._refuse(name, "forbidden", "a viewer may not change anything")
            return Identity(name, role=self._operators[name].role)
        if not self._callers:
            return Identity("anonymous")
        if not token:
            self._refuse("anonymous", "unauthenticated", "a bearer token is required")
        name = self._match_caller(token)
        if not name:
            return self._refuse("unknown", "unauthenticated", "the bearer token is not known")
        caller = self._callers[name]
        return Identity(
            name, tuple(caller.accounts), commands_per_s=caller.commands_per_s, open_requests=caller.open_requests
        )

    def may_look(self, token: str) -> str | None:
        """The operator behind a token, for the HTTP pages."""
        return self._match_operator(token) or None

    def _operator(self, token: str, role: str) -> Identity:
        if not token:
            self._refuse("anonymous", "unauthenticated", "an operator's bearer token is required")
        name = self._match_operator(token)
        if not name:
            if caller := self._match_caller(token):
                self._refuse(caller, "forbidden", "this token is a caller's, not an operator's")
            self._refuse("unknown", "unauthenticated", "the bearer token is not known")
        if role == "operator" and self._operators[name].role != "operator":
            self._refuse(name, "forbidden", "a viewer may not change anything")
        return Identity(name, role=self._operators[name].role)

    def _match_operator(self, token: str) -> str:
        digest = _digest(token)
        for name, operator in self._operators.items():
            if token and hmac.compare_digest(operator.token_sha256, digest):
                return name
        return ""

    def _match_caller(self, token: str) -> str:
        digest = _digest(token)
        for name, caller in self._callers.items():
            if hmac.compare_digest(caller.token_sha256, digest):
                return name
        return ""

    def count(self, source: str, kind: str) -> None:
        """Something that was dropped without an answer, for the next aggregated entry."""
        self._refusals[source, kind] += 1

    def _refuse(self, source: str, code: str, message: str) -> Identity:
        self._refusals[source, code] += 1
        raise Rejected(code, message)

    async def audit(self, engine: Engine, period_s: float = 60.0) -> None:
        """One aggregated entry per source, kind and minute: the first at once, what follows when the minute is over."""
        while True:
            await asyncio.sleep(min(LOOK_S, period_s))
            now_s = time.monotonic()
            self._written = {key: at_s for key, at_s in self._written.items() if now_s - at_s < period_s}
            self._write(engine, {key: self._refusals.pop(key) for key in [*self._refusals] if key not in self._written})

    def flush(self, engine: Engine) -> None:
        """Write what was refused since the last time."""
        counted, self._refusals = self._refusals, Counter()
        self._write(engine, counted)

    def _write(self, engine: Engine, counted: Mapping[tuple[str, str], int]) -> None:
        if not counted:
            return
        now = engine.now_us()
        self._written |= dict.fromkeys(counted, time.monotonic())
        turn = Turn()
        turn.audits = [
            AuditDraft(
                ids.type_id("aud", now, secrets.token_bytes(10)),
                now,
                source,
                ACTIONS.get(code, f"auth.{code}"),
                "api:amends",
                None,
                None,
                "",
                "",
                "",
                "",
                engine.context.epoch,
                {"count": count},
            )
            for (source, code), count in sorted(counted.items())
        ]
        engine.writer.submit(Pending(turn, lambda error: None))


def _digest(token: str) -> str:
    """What a token is known by. A header may hold bytes that are no text; they are no token of ours either."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _bearer(headers: Headers) -> str:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
