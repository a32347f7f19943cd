"""A simulated world whose runtime is led by hand: one command after another, with crashes between and within them."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from adapters.simulated.loop import VirtualLoop
from supervisors.invariants import committed
from supervisors.invariants.records import Violation
from supervisors.simulation.checks import paused, records_of
from supervisors.simulation.operator import THEMSELVES, asked_for
from supervisors.simulation.points import Points
from supervisors.simulation.random_world import MOVING
from supervisors.simulation.sweep import unsound
from supervisors.simulation.world import Refused, Running, World

REST_S: Final = 900.0  # virtual, until all is at rest
LOOK_S: Final = 2.0  # between two doings of an operator
LOOKS: Final = 17
Reply = dict[str, Any] | str  # a command's data, or the code of its refusal


class Stepped:
    """See above. `replies` by idempotency key is what clients have been told."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed, cleanup_tries=3)
        self.world.provider()
        self.replies: dict[str, Reply] = {}
        self.begin()

    def begin(self) -> None:
        """The process starts."""
        world = self.world
        self._loop, points = VirtualLoop(world.now_s), Points()
        points.loop, world.time = self._loop, self._loop.time
        world.runs += 1
        self.running = Running(world, self._loop, points, is_dead=lambda holder: True)
        self.do(self.running.start())

    def do(self, what: Coroutine[Any, Any, Any]) -> Any:
        """To its end; whatever a task of the runtime failed with unheard is raised."""
        found = self._loop.run_until_complete(what)
        assert not self._loop.unheard, self._loop.unheard
        return found

    def dies(self) -> None:
        """The process is gone, whatever it was at; the world goes on."""
        world = self.world
        world.now_s = self._loop.time() + 1.0
        world.time = lambda: world.now_s
        self._loop.bury()
        self._loop.close()

    def ask(self, key: str, subject: str, body: dict[str, Any]) -> Reply:
        """A command's data, or why it is refused; a repeat is told what was told before."""
        found: Reply = self.do(self._asked(key, subject, body))
        return found

    async def _asked(self, key: str, subject: str, body: dict[str, Any]) -> Reply:
        try:
            found: Reply = await self.running.ask(subject, key, **body)
        except Refused as refused:
            found = refused.code
        self.replies.setdefault(key, found)
        return found

    def ask_and_die(self, key: str, subject: str, body: dict[str, Any], callbacks: int) -> Reply:
        """The process dies so many callbacks into the command, if that takes as long; the client asks again."""

        async def begin() -> asyncio.Task[Reply]:
            return asyncio.create_task(self._asked(key, subject, body), name="command")

        task = self.do(begin())
        for _ in range(callbacks):
            if task.done():
                break
            self._loop.step()
        self.dies()
        self.begin()
        return self.ask(key, subject, body)

    def passes(self, seconds: float) -> None:
        """Time does."""
        self.do(asyncio.sleep(seconds))

    def wrong(self) -> list[Violation]:
        """What does not hold of this committed instant."""
        records = records_of(self.world.database)
        return [*committed(records), *paused(records), *self.world.broken]

    # --- the end -------------------------------------------------------------------------------------

    def comes_to_rest(self) -> list[Violation]:
        """Everything outside is well again and operators do what runbooks say: what is not at rest then, or unsound."""
        for machine in self.world.machines.machines.values():
            machine.up = machine.beats = True
            machine.mend()
        self.world.stripe.up = self.world.provider().up = True
        for stored in self.world.provider().namespaces.values():
            stored.used_bytes = 0  # below any quota that a stranger may have set
        try:
            self.do(self._rests())
            self.do(self.running.stop())
        finally:
            self.dies()
        return unsound(self.world)

    async def _rests(self) -> None:
        deadline, looks = self._loop.time() + REST_S, 0
        while not await self._is_at_rest():
            assert self._loop.time() < deadline, f"it does not come to rest: {self._moving()}, {self._open()}"
            looks += 1
            await self._settled(looks)

    async def _is_at_rest(self) -> bool:
        """Whether it is, at some instant of the next `LOOK_S`: here and there a turn is under way."""
        for _ in range(LOOKS):
            if not self._moving():
                return True
            await asyncio.sleep(LOOK_S / LOOKS)
        return False

    def _moving(self) -> list[str]:
        tables = self.world.database.tables
        moving = [f"{kind}:{name} {write.state}" for (kind, name), write in tables.states.items()
                  if write.state in MOVING.get(kind, ()) or (kind, write.state) in UNSETTLED]  # fmt: skip
        debts = [f"debt {row['target_ref']}" for row in tables.rows["debts"].values() if row["settled_us"] is None]
        runs = [
            f"{row['matrix_row']} of {row['entity']}"
            for row in tables.rows["recovery_run"].values()
            if row["ended_us"] is None
        ]
        return [*self.running.owed(), *moving, *debts, *runs]

    def _open(self) -> list[str]:
        """The open cases."""
        rows = self.world.database.tables.rows["ops_case"].values()
        return [f"{row['kind']} of {row['entity']}" for row in rows if row["state"] != "resolved"]

    async def _settled(self, look: int) -> None:
        for case in list(self.world.database.tables.rows["ops_case"].values()):
            if case["state"] == "open" and case["kind"] not in THEMSELVES:
                for subject, body in asked_for(self.running, case):
                    await self._asked(f"{case['case_id']}/{look}", subject, {**body, "reason": "it has been mended"})
        for (kind, name), write in list(self.world.database.tables.states.items()):
            if kind == "allocation" and write.state in ("requested", "active"):
                await self._asked(f"{name}/end", "cmd.allocation.release", {"allocation_id": name})
            if kind == "node" and write.state == "quarantined":
                body = {"node_id": name, "acknowledge_dirty": True, "reason": "it is well again"}
                await self._asked(f"{name}/back/{look}", "ops.node.return_to_service", body)


UNSETTLED: Final = (("allocation", "active"), ("node", "suspect"), ("node", "offline"), ("node", "quarantined"))
