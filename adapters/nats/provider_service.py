"""A storage provider's side: the rules of api.md 7 over a `Backend`, served on NATS for one provider id.

A grant is on the disk before it is applied, and its revoke before it is withdrawn, so a crash leaves nothing that a
repeat does not find. Several grants of one (namespace, address) are one access, with the widest of their modes.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from adapters.nats.keyed_lock import KeyedLock
from adapters.nats.provider_store import Held, ProviderStore
from adapters.nats.provider_words import MAX_GRANTS, MAX_REQUEST_BYTES, NEEDED, Request, read_request, told
from amends.ports.storage import Access, Backend, Mode, Trouble
from amends.values.canonical import UNREADABLE

log = logging.getLogger("amends.provider")
MAX_UNDER_WAY: Final = 1024
MAX_PENDING: Final = 8192  # read from the connection and not begun
LOOK_S: Final = 0.5  # between two looks whether the connection is closed for good
Reply = dict[str, Any]
Operation = Callable[[Request, str], Awaitable[Reply]]  # with the address of a grant's access
GONE: Final[Reply] = {"granted": False, "mode": ""}


class ProviderService:
    """One provider; `state_dir` is its own."""

    def __init__(
        self, provider_id: str, backend: Backend, state_dir: Path, *,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:  # fmt: skip
        self.name, self._provider_id, self._backend, self._now = f"provider {provider_id}", provider_id, backend, now_us
        self._store = ProviderStore(state_dir)
        self._one_by_one = KeyedLock()
        self._under_way: set[asyncio.Task[None]] = set()
        self._ops: Mapping[str, Operation] = {
            "capabilities": self._capabilities, "usage": self._usage, "verify": self._verify,
            "grants": self._grants,
            "grant": self._grant, "revoke": self._revoke,
        }  # fmt: skip

    # --- on NATS -------------------------------------------------------------------------------------

    async def serve(self, client: Client) -> None:
        """Serve on an open connection until it is closed for good."""
        subscription = await client.subscribe(
            f"amends.v1.provider.{self._provider_id}.*", cb=self._on_request,
            pending_msgs_limit=MAX_PENDING, pending_bytes_limit=MAX_UNDER_WAY * MAX_REQUEST_BYTES,
        )  # fmt: skip
        try:
            while not client.is_closed:  # noqa: ASYNC110 - the driver tells that to nobody but its opener
                await asyncio.sleep(LOOK_S)
        finally:
            with suppress(NatsError, OSError):
                await subscription.unsubscribe()

    async def close(self) -> None:
        """End what is under way, as a crash would, and let the directory go."""
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)
        await self._backend.close()
        self._store.close()

    async def _on_request(self, message: Msg) -> None:
        if len(self._under_way) >= MAX_UNDER_WAY:
            await _respond(message, _refusal("busy", "too many requests at once", retryable=True))
            return
        task = asyncio.create_task(self._reply(message))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _reply(self, message: Msg) -> None:
        op = message.subject.rpartition(".")[2]
        try:
            reply = await self.answer(op, message.data)
        except Exception as error:
            log.exception("the provider cannot do %s", op)
            reply = _refusal("internal", type(error).__name__, retryable=True)
        await _respond(message, reply)

    # --- the rules -----------------------------------------------------------------------------------

    async def restore(self) -> None:
        """After a start: give again what was granted, and take away what was revoked and not seen to be gone.

        The server of a storage host forgets its exports when it is restarted itself.
        """
        self._store.forget(self._now())
        wanted: dict[Access, Mode] = {}
        for access in self._store.accesses():
            if mode := self._store.widest(*access):
                wanted[access] = mode
        try:
            for (namespace_id, _), trouble in (await self._backend.restore(wanted)).items():
                log.warning("access to %s is not as it was granted: %s", namespace_id, trouble.message)
        except Trouble as trouble:
            log.warning("access is not as it was granted: %s", trouble.message)
        await asyncio.gather(*map(self._withdrawn, self._store.owed()))

    async def _withdrawn(self, held: Held) -> None:
        try:
            async with self._one_by_one.of(f"access {held.namespace_id} {held.address}"):
                await self._settle(held)
        except Trouble as trouble:
            log.warning("%s of %s: %s", held.grant_id, held.namespace_id, trouble.message)

    async def answer(self, op: str, data: bytes) -> Reply:
        """The reply to a request. Raises what nobody expects."""
        do = self._ops.get(op)
        if do is None:
            return _refusal("unsupported_op", told(f"there is no operation {op!r}"))
        try:
            request = read_request(data, op)
        except UNREADABLE as error:
            return _refusal("invalid_request", told(str(error)))
        if "grant_id" not in NEEDED[op]:
            return await self._done(do, request)
        async with self._one_by_one.of(f"grant {request.grant_id}"):
            try:
                address = await self._address(request)
            except Trouble as trouble:
                return _troubled(trouble)
            async with self._one_by_one.of(f"access {request.namespace_id} {address}"):
                return await self._done(do, request, address)

    async def _address(self, request: Request) -> str:
        """Of what was granted before, that; of a new grant, what its node's name stands for now."""
        held = self._store.get(str(request.grant_id))
        if held is not None or request.node_address is None:
            return held.address if held is not None else ""
        return await self._backend.locate(str(request.namespace_id), request.node_address)

    async def _done(self, do: Operation, request: Request, address: str = "") -> Reply:
        if stale := self._store.stale(request.runtime_epoch):
            return _refusal("stale_epoch", stale)
        try:
            await asyncio.to_thread(self._store.raise_epoch, request.runtime_epoch)
            return {"status": "ok", "retryable": False, "code": "", "message": "", **await do(request, address)}
        except Trouble as trouble:
            return _troubled(trouble)
        except OSError as error:
            return _refusal("provider_failed", told(f"the provider cannot use its disk: {error}"), retryable=True)

    async def _capabilities(self, request: Request, address: str) -> Reply:
        found: Reply = msgspec.to_builtins(self._backend.capabilities())
        return found

    async def _usage(self, request: Request, address: str) -> Reply:
        found: Reply = msgspec.to_builtins(await self._backend.usage(str(request.namespace_id)))
        return found

    async def _verify(self, request: Request, address: str) -> Reply:
        held = self._held(request)
        if held is None or not held.address:
            return {"observed": GONE}
        if held.revoked_us is not None and self._store.widest(held.namespace_id, held.address):
            return {"observed": GONE}  # what there is, is others'
        return {"observed": _seen(await self._backend.look(held.namespace_id, held.address))}

    async def _grants(self, request: Request, address: str) -> Reply:
        """Those that give access now; of an access that none in force wants, those that were to take it away."""
        found = []
        for namespace_id, of in self._store.accesses():
            if namespace_id != request.namespace_id or not of:
                continue
            there = bool(await self._backend.look(namespace_id, of))
            wanted = self._store.widest(namespace_id, of)
            found += [
                {"grant_id": held.grant_id, "node_id": held.node_id, "mode": held.mode}
                for held in self._store.of(namespace_id, of)
                if there and held.applied and (held.revoked_us is None or not wanted)
            ]  # fmt: skip
        return {"grants": sorted(found, key=lambda each: each["grant_id"])[:MAX_GRANTS]}

    async def _grant(self, request: Request, address: str) -> Reply:
        held = self._held(request)
        if held is not None and held.revoked_us is not None:
            raise Trouble("revoked", "this grant was taken back before", retryable=False)
        if held is None:
            held = await self._intend(request, address)
        elif (held.node_address, held.mode) != (request.node_address, request.mode):
            raise Trouble("grant_mismatch", "this grant has another address or mode", retryable=False)
        before = self._store.widest(held.namespace_id, held.address)
        mode: Mode = "rw" if "rw" in (before, held.mode) else "ro"
        source = await self._backend.apply(held.namespace_id, held.address, mode)
        seen = await self._backend.look(held.namespace_id, held.address)
        if seen != mode:
            raise Trouble("not_applied", f"after the grant there is {seen or 'no'} access", partial=bool(seen))
        if not held.applied:
            await self._put(replace(held, applied=True))
        return {"source": source, "observed": _seen(seen)}

    async def _intend(self, request: Request, address: str) -> Held:
        """Written down before it is done; what somebody else has given already is not ours to take away later."""
        namespace_id = str(request.namespace_id)
        ours = {held.node_id for held in self._store.of(namespace_id, address)}
        if not self._backend.shared and (others := ours - {request.node_id}):
            raise Trouble(
                "address_ambiguous", f"{address} is where {', '.join(sorted(others))} mounts {namespace_id} from",
                retryable=False,
            )  # fmt: skip
        if not ours and await self._backend.look(namespace_id, address):
            raise Trouble(
                "foreign_grant", f"{address} has access to {namespace_id} by another hand; that is left alone",
                retryable=False,
            )  # fmt: skip
        assert request.mode is not None
        held = Held(
            str(request.grant_id), namespace_id, str(request.node_id), str(request.node_address), address, request.mode
        )
        await self._put(held)
        return held

    async def _revoke(self, request: Request, address: str) -> Reply:
        held = self._held(request)
        if held is None:  # it may still come
            held = Held(str(request.grant_id), str(request.namespace_id), str(request.node_id))
        if held.revoked_us is None:
            held = replace(held, revoked_us=self._now())
            await self._put(held)
        if not held.settled:  # what is there after that is not by this grant, and stays
            await self._settle(held)
            await asyncio.to_thread(self._store.forget, self._now())
        return {"observed": GONE}

    async def _settle(self, held: Held) -> None:
        """Bring the access of a revoked grant to what the grants in force want, and see that it is so."""
        wanted = self._store.widest(held.namespace_id, held.address)
        if held.address:
            if wanted is None:
                await self._backend.withdraw(held.namespace_id, held.address)
            else:
                await self._backend.apply(held.namespace_id, held.address, wanted)
            seen = await self._backend.look(held.namespace_id, held.address)
            if seen != (wanted or ""):
                raise Trouble("still_granted", f"there still is {seen or 'no'} access", partial=True)
        await self._put(replace(held, settled=True))

    def _held(self, request: Request) -> Held | None:
        held = self._store.get(str(request.grant_id))
        if held is not None and (held.namespace_id, held.node_id) != (request.namespace_id, request.node_id):
            raise Trouble("grant_mismatch", "this grant is of another namespace or node", retryable=False)
        return held

    async def _put(self, held: Held) -> None:
        await asyncio.to_thread(self._store.put, held)


def _seen(mode: str) -> Reply:
    return {"granted": bool(mode), "mode": mode}


def _refusal(code: str, message: str, status: str = "error", *, retryable: bool = False) -> Reply:
    return {"status": status, "retryable": retryable, "code": code, "message": message}


def _troubled(trouble: Trouble) -> Reply:
    status = "partial" if trouble.partial else "error"
    return _refusal(trouble.code, told(trouble.message), status, retryable=trouble.retryable)


async def _respond(message: Msg, reply: Reply) -> None:
    if not message.reply:
        return
    try:
        await message.respond(msgspec.json.encode(reply))
    except (NatsError, OSError) as error:
        log.info("a reply was not sent: %s", error)  # who asks will ask again
