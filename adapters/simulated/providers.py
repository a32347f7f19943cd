"""Storage providers of a simulated world, without NATS: grants, their tombstones, and what goes wrong with them."""

import asyncio
from typing import Any

from adapters.simulated.faults import CALM, Faults, Links
from adapters.simulated.machines import Fault
from amends.ports.steps import Outcome, StepCall


class SimulatedProviders:
    """What is kept when a runtime dies."""

    def __init__(self) -> None:
        self.grants: dict[str, dict[str, Any]] = {}
        self.revoked: set[str] = set()
        self.used: dict[str, int] = {}
        self.reads = 0
        self.calls: list[tuple[str, str]] = []
        self.faults: dict[str, list[Fault]] = {}
        self.multi_attach = False
        self.modes, self.prefixes = ["ro", "rw"], list[str]()

    def break_next(self, op: str, kind: str, times: int = 1) -> None:
        self.faults.setdefault(op, []).append(Fault(kind, times))

    def mend(self) -> None:
        self.faults.clear()

    def fault(self, op: str) -> str:
        waiting = self.faults.get(op, [])
        if not waiting:
            return ""
        fault = waiting[0]
        fault.times -= 1
        if fault.times == 0:
            waiting.pop(0)
        return fault.kind


class SimulatedProviderSteps:
    """Implements `amends.ports.steps.StepRunner` for `provider.*`."""

    def __init__(self, providers: SimulatedProviders, *, faults: Faults = CALM, links: Links | None = None) -> None:
        self._world, self._faults, self._links = providers, faults, links or Links()

    async def run(self, call: StepCall) -> Outcome:
        try:
            async with asyncio.timeout(call.timeout_ms / 1000):
                await self._faults.before(call.name)
                outcome = await self._act(call)
                await self._faults.after(call.name)
        except TimeoutError:
            return Outcome("unknown", "provider_timeout", "no answer in time")
        return outcome

    async def _act(self, call: StepCall) -> Outcome:
        op, args, world = call.name.removeprefix("provider."), call.args, self._world
        kind = world.fault(op)
        if kind == "fail":
            return Outcome("failed", "provider_error", "fault injected", data={"retryable": True})
        if kind == "fail_final":
            return Outcome("failed", "quota", "fault injected", data={"retryable": False})
        if kind == "hang":
            await asyncio.get_running_loop().create_future()
        world.calls.append((op, args.get("grant_id", args["namespace_id"])))
        data: dict[str, Any] = {}
        if op == "grant":
            if args["grant_id"] in world.revoked:
                return Outcome("failed", "revoked", "it was revoked", data={"retryable": False})
            source = {"type": "bind", "path": f"/srv/{args['namespace_id']}"}
            world.grants[args["grant_id"]] = dict(args)
            data = {"source": source}
        elif op == "revoke" and kind != "keep":
            world.grants.pop(args["grant_id"], None)
            world.revoked.add(args["grant_id"])
        elif op == "verify":
            data = {"granted": args["grant_id"] in world.grants}
            if data["granted"]:
                data["mode"] = world.grants[args["grant_id"]]["mode"]
        elif op == "usage":
            world.reads += 1
            data = {"used_bytes": world.used.get(args["namespace_id"], 0), "as_of_us": world.reads, "enforced": True}
        elif op == "capabilities":
            data = {"modes": world.modes, "multi_attach": world.multi_attach, "mount_path_prefixes": world.prefixes,
                    "enforcement": True}  # fmt: skip
        if kind == "partial":
            return Outcome("failed", "partial", "half of it", data={"partial": True, "retryable": True})
        if kind == "lose":
            return Outcome("unknown", "provider_timeout", "lost")
        return Outcome("done", data=data)
