"""Storage providers of a simulated world, without NATS: their rules, what they keep, and what may go wrong with them.

The rules are those of `adapters/nats/provider_service.py`; outcomes those of `adapters/nats/providers.py`.
"""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from adapters.simulated.faults import CALM, FaultQueue, Faults, Links
from amends.ports.steps import Outcome, StepCall

SLOW_S: Final = 0.3
TOMBSTONE_US: Final = 30 * 86_400 * 1_000_000
WIDER: Final = {"": 0, "ro": 1, "rw": 2}
Data = dict[str, Any]


class Stored(Struct):
    """A namespace at its provider: what lies in it, and what its usage is said to be."""

    files: dict[str, bytes] = {}
    used_bytes: int = 0
    enforced: bool = True
    as_of_us: int | None = None  # None: now

    def checksum(self) -> str:
        """Of all that lies in it."""
        whole = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            whole.update(f"{name} {len(content)} ".encode() + content)
        return whole.hexdigest()


class GrantMade(Struct):
    """A grant at its provider. `revoked_us`: its tombstone's time."""

    namespace_id: str
    node_id: str
    node_address: str = ""
    mode: str = "ro"
    applied: bool = False
    revoked_us: int | None = None


class Provider:
    """One provider; `up` is false while nobody serves it. `access`: who may mount what, by namespace and address."""

    def __init__(self, provider_id: str) -> None:
        self.provider_id, self.up, self.epoch = provider_id, True, 0
        self.grants: dict[str, GrantMade] = {}
        self.access: dict[tuple[str, str], str] = {}
        self.namespaces: dict[str, Stored] = {}
        self.capabilities: Data = {
            "modes": ["ro", "rw"], "multi_attach": False, "mount_path_prefixes": [], "enforcement": "quota",
        }  # fmt: skip
        self.knows = set(OPS)  # an older one does not know them all
        self.calls: list[tuple[str, Data]] = []  # (op, args) of all that reached it
        self.laid = FaultQueue()

    def hold(self, namespace_id: str, **files: bytes) -> Stored:
        """One more namespace."""
        stored = self.namespaces[namespace_id] = Stored(dict(files), sum(map(len, files.values())))
        return stored

    def break_next(self, op: str, kind: str, times: int = 1) -> None:
        """Let something go wrong with the next calls of that op.

        fail, fail_final (another try does not mend it), partial (done, and said to be half done), hang (not done, not
        answered), lose (done, reply lost), slow, lie (says ok, has not), keep (a revoke that says ok and leaves
        access), absent (nobody serves), malformed.
        """
        self.laid.add(op, kind, times)

    def mend(self) -> None:
        """Nothing goes wrong any more."""
        self.laid.clear()

    def fault(self, op: str) -> str:
        """The kind of the fault that meets this call, "" for none."""
        return self.laid.take(op)

    def widest(self, namespace_id: str, address: str) -> str:
        """The widest mode of the grants in force of one access."""
        modes = [
            grant.mode for grant in self.grants.values()
            if (grant.namespace_id, grant.node_address) == (namespace_id, address)
            and grant.applied and grant.revoked_us is None
        ]  # fmt: skip
        return max(modes, key=WIDER.__getitem__, default="")

    def settle(self, namespace_id: str, address: str) -> None:
        """Access as the grants in force want it."""
        mode = self.widest(namespace_id, address)
        if mode:
            self.access[namespace_id, address] = mode
        else:
            self.access.pop((namespace_id, address), None)


class SimulatedProviders:
    """All providers: what is kept when a runtime dies."""

    def __init__(self) -> None:
        self.providers: dict[str, Provider] = {}

    def add(self, provider_id: str) -> Provider:
        """One more."""
        provider = self.providers[provider_id] = Provider(provider_id)
        return provider


class SimulatedProviderSteps:
    """Implements `amends.ports.steps.StepRunner` for `provider.*`, for one process."""

    def __init__(
        self, world: SimulatedProviders, *, now_us: Callable[[], int], faults: Faults = CALM, links: Links | None = None
    ) -> None:
        self._world, self._now, self._faults, self._links = world, now_us, faults, links or Links()

    async def run(self, call: StepCall) -> Outcome:
        """One try of a step; what is not answered in time is unknown."""
        try:
            async with asyncio.timeout(call.timeout_ms / 1000):
                await self._faults.before(call.name)
                outcome = await self._act(call)
                await self._faults.after(call.name)
        except TimeoutError:
            return Outcome("unknown", "provider_timeout", "the provider gave no reply in time")
        return outcome

    async def _act(self, call: StepCall) -> Outcome:
        if not self._links.bus:
            await asyncio.get_running_loop().create_future()
        op, args = call.name.removeprefix("provider."), call.args
        provider = self._world.providers.get(args["provider_id"])
        kind = provider.fault(op) if provider is not None and provider.up else "absent"
        if provider is None or kind == "absent":
            return Outcome(
                "failed", "provider_absent", "nobody serves this provider", may_have_run=False, data={"retryable": True}
            )
        if kind == "hang":
            await asyncio.get_running_loop().create_future()  # until the call's time is over
        if kind == "slow":
            await asyncio.sleep(SLOW_S)
        if kind in SAID_AT_ONCE:
            code, retryable = SAID_AT_ONCE[kind]
            return _failed(code, "fault injected", retryable=retryable)
        provider.calls.append((op, dict(args)))
        if call.epoch < provider.epoch:
            return _failed("stale_epoch", f"stale runtime epoch {call.epoch}, highest seen {provider.epoch}")
        provider.epoch = call.epoch
        if op not in provider.knows:
            return _failed("unsupported_op", f"there is no operation {op!r}")
        outcome = OPS[op](provider, args, self._now(), kind)
        if kind == "lose":
            await asyncio.get_running_loop().create_future()
        if kind == "partial":
            return Outcome("failed", "partial", "fault injected", data={"retryable": True, "partial": True})
        return outcome


# Faults that keep a call from doing anything, with the code of their answer and whether a repeat may mend it.
SAID_AT_ONCE: Final = {
    "fail": ("provider_failed", True),
    "fail_final": ("provider_failed", False),
    "malformed": ("provider_malformed", True),
}


def _failed(code: str, message: str, *, retryable: bool = False) -> Outcome:
    return Outcome("failed", code, message, data={"retryable": retryable})


def _is_other(grant: GrantMade | None, args: Data) -> bool:
    return grant is not None and (grant.namespace_id, grant.node_id) != (args["namespace_id"], args["node_id"])


def _mismatch() -> Outcome:
    return _failed("grant_mismatch", "this grant is of another namespace, node, address or mode")


def _grant(provider: Provider, args: Data, now_us: int, kind: str) -> Outcome:
    grant = provider.grants.get(args["grant_id"])
    if _is_other(grant, args):
        return _mismatch()
    if grant is not None and grant.revoked_us is not None:
        return _failed("revoked", "this grant was taken back before")
    if grant is not None and (grant.node_address, grant.mode) != (args["node_address"], args["mode"]):
        return _mismatch()
    pair = args["namespace_id"], args["node_address"]
    if grant is None:  # written down before it is done
        provider.grants[args["grant_id"]] = GrantMade(pair[0], args["node_id"], pair[1], args["mode"])
    if args["namespace_id"] not in provider.namespaces:
        return _failed("no_such_namespace", "an operator makes it before it is used")
    if kind != "lie":
        provider.grants[args["grant_id"]] = GrantMade(pair[0], args["node_id"], pair[1], args["mode"], applied=True)
        provider.settle(*pair)
    mode = provider.access.get(pair, args["mode"])
    source = {"type": "bind", "path": f"/srv/{provider.provider_id}/{pair[0]}"}
    return Outcome("done", data={"source": source, "observed": {"granted": True, "mode": mode}})


def _revoke(provider: Provider, args: Data, now_us: int, kind: str) -> Outcome:
    grant = provider.grants.get(args["grant_id"])
    if _is_other(grant, args):
        return _mismatch()
    if kind == "lie":
        return Outcome("done")
    if grant is None:
        grant = provider.grants[args["grant_id"]] = GrantMade(args["namespace_id"], args["node_id"])
    grant.revoked_us = grant.revoked_us or now_us
    if kind != "keep":
        provider.settle(grant.namespace_id, grant.node_address)
    for grant_id, each in list(provider.grants.items()):
        if each.revoked_us is not None and each.revoked_us <= now_us - TOMBSTONE_US:
            del provider.grants[grant_id]
    return Outcome("done")


def _verify(provider: Provider, args: Data, now_us: int, kind: str) -> Outcome:
    grant = provider.grants.get(args["grant_id"])
    if _is_other(grant, args):
        return _mismatch()
    mode = ""
    if grant is not None and (grant.revoked_us is None or not provider.widest(grant.namespace_id, grant.node_address)):
        mode = provider.access.get((grant.namespace_id, grant.node_address), "")
    return Outcome("done", data={"granted": bool(mode), "mode": mode})


def _usage(provider: Provider, args: Data, now_us: int, kind: str) -> Outcome:
    stored = provider.namespaces.get(args["namespace_id"])
    if stored is None:
        return _failed("no_such_namespace", "an operator makes it before it is used")
    as_of_us = now_us if stored.as_of_us is None else stored.as_of_us
    return Outcome("done", data={
        "used_bytes": stored.used_bytes, "as_of_us": as_of_us, "enforced": stored.enforced,
        "capabilities": dict(provider.capabilities),
    })  # fmt: skip


def _capabilities(provider: Provider, args: Data, now_us: int, kind: str) -> Outcome:
    return Outcome("done", data=dict(provider.capabilities))


def _grants(provider: Provider, args: Data, now_us: int, kind: str) -> Outcome:
    found = []
    for grant_id, grant in sorted(provider.grants.items()):
        pair = grant.namespace_id, grant.node_address
        in_force = grant.revoked_us is None or not provider.widest(*pair)
        if grant.namespace_id == args["namespace_id"] and grant.applied and in_force and pair in provider.access:
            found.append({"grant_id": grant_id, "node_id": grant.node_id, "mode": grant.mode})
    return Outcome("done", data={"grants": found, "whole": True})


OPS: Final[dict[str, Callable[[Provider, Data, int, str], Outcome]]] = {
    "grant": _grant, "revoke": _revoke, "verify": _verify, "usage": _usage, "capabilities": _capabilities,
    "grants": _grants,
}  # fmt: skip
