"""Requests from outside: checked, authenticated, told from their repeats, and handed to an actor. No transport here.

A reply means committed. The same key and body gets the first reply again, a concurrent one waits for it; another
body under the key is refused. What may be kept (`KEPT`, and what is ok) is kept in the transaction of its turn.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from amends.ports.journal import KeptReply
from amends.runtime.engine import Engine
from amends.runtime.identity import Headers, Identity, Trace, trace_of
from amends.runtime.request_places import Places, class_of
from amends.turn.messages import CommandInfo, Envelope
from amends.values import ids
from amends.values.canonical import canonical, sha256
from amends.values.errors import KEPT, Rejected, TooSlow, Unavailable

log = logging.getLogger("amends.requests")
MAX_BYTES = 64 * 1024
REPLY_TIMEOUT_S = 30.0
AWAY_TIMEOUT_S = 3.0  # while the database is known to be away, or to refuse all writes
_KEY = re.compile(r"[\x20-\x7e]{1,128}")


class Endpoint(Struct, frozen=True, kw_only=True):
    """One subject: what it takes and which actor answers.

    `target` names the actor from the request (and, for a new one, the fresh id); `prepare` may re-encode a request
    before it becomes a message, minding who asks, and raises `Rejected`. `role`: caller, reader, operator, viewer,
    signed (whoever sent it, its body proves it); `trusted`: of callers only those who speak for every account.
    """

    subject: str
    request: Any  # the type of the data object
    role: str = "caller"
    trusted: bool = False
    target: Callable[[Any], tuple[str, str]] | None = None
    mints: str = ""  # prefix of the id of the actor this creates
    kind: str = ""
    prepare: Callable[[Any, Identity], Any] | None = None
    # finds actor and message in the database; no id: the one that is minted
    locate: Callable[[Any], Awaitable[tuple[str, str, Any]]] | None = None
    answer: Callable[[Any, Identity], Awaitable[dict[str, Any]]] | None = None  # a question: read, not done
    account: Callable[[Any], str | None] | None = None
    raw: Callable[[bytes, Headers, "Entry"], Awaitable[dict[str, Any]]] | None = None  # takes the body as it came
    outcome: Callable[[str], Awaitable[dict[str, Any]]] | None = None  # by request: what is waited for and added
    keyed: str = ""  # the field whose value may stand at the end of the subject instead: of an entity that exists


class Reply(Struct):
    """What goes back: the JSON object, and whether it is an error."""

    body: dict[str, Any]
    error: Rejected | None = None


class Entry(Struct, frozen=True):
    """A request that has a place: as what, and whose."""

    request_id: str
    identity: Identity
    trace: Trace
    received_us: int


class Limits(Protocol):
    """What callers may not go beyond; both raise `Rejected` (throttled)."""

    def command(self, identity: Identity) -> None:
        """One command is sent."""
        ...

    def enter(self, request: Any, identity: Identity) -> Callable[[], None]:
        """A new command becomes a turn; the answer is called when that is over."""
        ...


class NoLimits:
    """Nobody has any."""

    def command(self, identity: Identity) -> None:
        """Always."""

    def enter(self, request: Any, identity: Identity) -> Callable[[], None]:
        """Always."""
        return lambda: None


Answer = Reply | tuple[dict[str, Any] | None, Rejected | None]  # kept, or an actor's data or refusal
FindKept = Callable[[str, str], Awaitable[KeptReply | None]]


class Requests:
    """Handles commands, operators' commands and questions."""

    def __init__(
        self, engine: Engine, authenticate: Callable[[Headers, str], Identity], kept: FindKept,
        limits: Limits | None = None,
    ) -> None:  # fmt: skip
        self._engine, self._authenticate, self._kept = engine, authenticate, kept
        self._limits = limits or NoLimits()
        self.places = Places()
        self._flying: dict[tuple[str, str], tuple[str, asyncio.Future[Reply]]] = {}
        self.handled = self.refused = 0

    def enter(self, endpoint: Endpoint, headers: Headers) -> Entry | Reply:
        """A place for the request of whoever asks, or the reply that refuses it. Never waits: it is asked in order."""
        now = self._engine.now_us()
        request_id = ids.type_id("req", now, self._engine.entropy(10))
        trace = trace_of(headers, request_id, None)
        self.handled += 1
        try:
            identity = self._authenticate(headers, endpoint.role)
            trace = trace_of(headers, request_id, identity)
            self.places.enter(class_of(endpoint.role, identity), identity)
        except Rejected as error:
            self.refused += 1
            return _refusal(error, request_id, trace.trace_id)
        return Entry(request_id, identity, trace, now)

    async def handle(self, endpoint: Endpoint, data: bytes, headers: Headers, entry: Entry, named: str = "") -> Reply:
        """The reply to one request that has a place; never raises for what a caller may do.

        `named`: the entity that the subject named.
        """
        request_id, trace_id = entry.request_id, entry.trace.trace_id
        try:
            if named:
                data = _with_key(endpoint, data, named)
            if endpoint.raw is not None:
                answer = await endpoint.raw(data, headers, entry)
                duplicate = bool(answer.get("duplicate"))
                return Reply(
                    {"ok": True, "request_id": request_id, "trace_id": trace_id, "duplicate": duplicate, "data": answer}
                )
            if endpoint.answer is not None:
                answer = await endpoint.answer(decode(endpoint, data), entry.identity)
                return Reply(
                    {"ok": True, "request_id": request_id, "trace_id": trace_id, "duplicate": False, "data": answer}
                )
            return await _with_outcome(endpoint, await self._command(endpoint, data, headers, entry))
        except Rejected as error:
            self.refused += 1
            return _refusal(error, request_id, trace_id)
        except TooSlow as error:
            return _refusal(Rejected("deadline_exceeded", str(error)), request_id, trace_id)
        except Unavailable as error:
            return _refusal(Rejected("db_unavailable", f"{error}; try again"), request_id, trace_id)
        except Exception:
            log.exception("a request on %s failed", endpoint.subject)
            text = "the request could not be handled; it changed nothing that was not committed"
            return _refusal(Rejected("internal", text), request_id, trace_id)
        finally:
            self.places.leave(class_of(endpoint.role, entry.identity), entry.identity)

    def too_large(self, reply: Reply, limit_bytes: int) -> Reply:
        """The reply in the place of one that no message can carry."""
        text = f"the answer is larger than a message may be ({limit_bytes} bytes); ask for less: a limit, a period"
        return _refusal(Rejected("invalid_request", text), reply.body["request_id"], reply.body["trace_id"])

    async def _command(self, endpoint: Endpoint, data: bytes, headers: Headers, entry: Entry) -> Reply:
        identity, trace, request_id = entry.identity, entry.trace, entry.request_id
        self._limits.command(identity)
        if endpoint.trusted and not identity.trusted:
            raise Rejected("forbidden", f"{endpoint.subject} is for operators and callers of every account")
        body = decode_any(data)
        request = decode(endpoint, data)
        key = headers.get("Idempotency-Key", "")
        if not _KEY.fullmatch(key):
            raise Rejected(
                "invalid_request", "the header Idempotency-Key must be 1 to 128 printable characters",
                field="Idempotency-Key",
            )  # fmt: skip
        info = CommandInfo(
            identity.key_space, key, sha256(canonical([endpoint.subject, body])), endpoint.subject, request_id,
            trace.trace_id, ids.span_id("command", request_id), trace.parent_span_id, entry.received_us,
            _expected_version(headers), identity.name if identity.operates else "", identity.accounts, trace.link,
        )  # fmt: skip
        place = (info.caller, key)
        flying = self._flying.get(place)
        if flying is not None:
            return _repeat(await self._in_time(flying[1]), flying[0], info)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._flying[place] = (info.body_hash, future)

        def landed(reply: Reply) -> None:
            del self._flying[place]
            future.set_result(reply)

        try:
            result = await self._first(endpoint, request, info, identity)
        except BaseException as error:
            landed(_failed(error, request_id, trace.trace_id))
            raise
        # A repeat waits for the turn itself, also when the first one to ask was told that it takes too long.
        result.add_done_callback(lambda done: landed(_answered(done.result(), info)))
        return await self._in_time(future)

    async def _first(
        self, endpoint: Endpoint, request: Any, info: CommandInfo, identity: Identity
    ) -> "asyncio.Future[Answer]":
        """What the request will come to: kept from before, or of a turn that is now under way."""
        result: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        known = self._engine.writer.known()
        kept = await self._kept(info.caller, info.key)
        if kept is not None:
            if kept.body_hash != info.body_hash:
                raise Rejected("idempotency_mismatch", "this Idempotency-Key was used with another request")
            result.set_result(Reply(_stored(kept), None))
            return result
        if known is not None and not self._engine.writer.trouble:  # who asks may have seen it in the database
            await asyncio.wait({known}, timeout=AWAY_TIMEOUT_S)
        if self._engine.stopping:
            raise Rejected("draining", "the runtime is being stopped; try again")
        if self._engine.writer.full:
            raise Rejected("throttled", "too many turns wait for the database; try again later")
        kind, identifier, fresh, message = await self._addressed(endpoint, request, identity)
        over = self._limits.enter(request, identity)

        def reply(data: dict[str, Any] | None, error: Rejected | None) -> None:
            if not result.done():
                over()
                result.set_result((data, error))

        env = Envelope(
            message, trace_id=info.trace_id, span_id=info.span_id, actor=identity.actor, request_id=info.request_id,
            command=info, reply=reply, fresh=fresh,
        )  # fmt: skip
        try:
            self._engine.tell(kind, identifier, env)
        except Rejected:
            over()
            raise
        return result

    async def _in_time(self, result: "asyncio.Future[Reply]") -> Reply:
        """The reply; raises `Rejected` when it takes too long, sooner while the database is away."""
        writer, waited_s = self._engine.writer, 0.0
        while True:
            await asyncio.wait({result}, timeout=AWAY_TIMEOUT_S)
            if result.done():
                return result.result()
            waited_s += AWAY_TIMEOUT_S
            if writer.trouble or waited_s >= REPLY_TIMEOUT_S:
                code = "db_unavailable" if writer.trouble else "deadline_exceeded"
                raise Rejected(code, "not committed in time; ask again with the same key")

    async def _addressed(self, endpoint: Endpoint, request: Any, identity: Identity) -> tuple[str, str, bool, Any]:
        """(kind, id, fresh, message) of the actor that is to answer."""
        if endpoint.prepare is not None:
            request = endpoint.prepare(request, identity)
        self._check_account(endpoint, request, identity)
        if endpoint.locate is not None:
            kind, identifier, message = await endpoint.locate(request)
            if kind not in self._engine.kinds:
                raise Rejected("illegal_transition", f"no release here knows a {kind}; use the one that made it")
            if identifier:
                return kind, identifier, False, message
            request = message
        if endpoint.mints:
            now = self._engine.now_us()
            return endpoint.kind, ids.type_id(endpoint.mints, now, self._engine.entropy(10)), True, request
        assert endpoint.target is not None
        return (*endpoint.target(request), False, request)

    def _check_account(self, endpoint: Endpoint, request: Any, identity: Identity) -> None:
        if endpoint.account is None or identity.trusted:
            return
        account = endpoint.account(request)
        if account is not None and account not in identity.accounts:
            raise Rejected("forbidden", "this caller may not act for that account", field="account_id")


async def _with_outcome(endpoint: Endpoint, reply: Reply) -> Reply:
    """What the command set going, once it has ended, beside what the command itself answers."""
    if endpoint.outcome is None or not reply.body["ok"]:
        return reply
    outcome = await endpoint.outcome(reply.body["request_id"])
    return Reply({**reply.body, "data": {**reply.body["data"], **outcome}})


def decode_any(data: bytes) -> Any:
    """The request as parsed JSON, for comparing repeats; raises `Rejected`."""
    if len(data) > MAX_BYTES:
        raise Rejected("invalid_request", f"a request has at most {MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("invalid_request", f"the request is not JSON: {error}") from None


def decode(endpoint: Endpoint, data: bytes) -> Any:
    """The request as its type; the error names the field and the reason."""
    if len(data) > MAX_BYTES:
        raise Rejected("invalid_request", f"a request has at most {MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(data or b"{}", type=endpoint.request)
    except msgspec.ValidationError as error:
        message = str(error)
        found = re.search(r"`\$\.?(.*?)`", message) if "at `" in message else None
        named = re.search(r"field `(.*?)`(?: - at `|$)", message, re.DOTALL)
        field = named.group(1) if named else found.group(1) if found else ""
        if not field and not named:
            raise Rejected("invalid_request", f"the request must be one JSON object: {message}") from None
        raise Rejected("invalid_request", message, field=field) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("invalid_request", f"the request is not JSON: {error}") from None


def _with_key(endpoint: Endpoint, data: bytes, named: str) -> bytes:
    """The same command with its key in the data (api.md 3)."""
    body = decode_any(data or b"{}")
    if not isinstance(body, dict):
        return data  # it is refused for that
    if body.setdefault(endpoint.keyed, named) != named:
        text = f"`{endpoint.keyed}` is not the one that the subject names"
        raise Rejected("invalid_request", text, field=endpoint.keyed)
    return msgspec.json.encode(body)


def _expected_version(headers: Headers) -> int | None:
    text = headers.get("Expected-Version")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Rejected("invalid_request", "the header Expected-Version must be a number", field="Expected-Version")
    return int(text)


def _refusal(error: Rejected, request_id: str, trace_id: str) -> Reply:
    return Reply({"ok": False, "request_id": request_id, "trace_id": trace_id, "error": error.body()}, error)


def _failed(error: BaseException, request_id: str, trace_id: str) -> Reply:
    if isinstance(error, Rejected):
        return _refusal(error, request_id, trace_id)
    if isinstance(error, Unavailable):
        return _refusal(Rejected("db_unavailable", str(error)), request_id, trace_id)
    return _refusal(Rejected("internal", "the first request under this key ended early"), request_id, trace_id)


def _answered(answer: Answer, info: CommandInfo) -> Reply:
    if isinstance(answer, Reply):
        return answer
    data, refused = answer
    if refused is not None:
        return _refusal(refused, info.request_id, info.trace_id)
    body = {"ok": True, "request_id": info.request_id, "trace_id": info.trace_id, "duplicate": False, "data": data}
    return Reply(body)


def _repeat(first: Reply, body_hash: str, info: CommandInfo) -> Reply:
    if body_hash != info.body_hash:
        raise Rejected("idempotency_mismatch", "this Idempotency-Key was used with another request")
    kept = first.error is None or first.error.code in KEPT
    return Reply({**first.body, "duplicate": True} if kept else first.body, first.error)


def _stored(kept: KeptReply) -> dict[str, Any]:
    stored = msgspec.json.decode(kept.reply)
    ok = "error" not in stored
    body = {"ok": ok, "request_id": kept.request_id, "trace_id": kept.trace_id, "duplicate": True}
    return {**body, **stored}
