"""A random world: the whole runtime among customers, an operator and faults, for so many simulated hours.

    found = RandomWorld(Wish(seed=1, hours=10, nodes=10, terms=terms, kinds=tuple(BY_NAME))).run()

Every hour it comes to a rest: faults are over, the operator settles what is open, all must become quiet, and then every
invariant is held to the world. The committed ones are looked at after each crash as well. One seed is one run.
"""

import asyncio
import time
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, Final

from msgspec import Struct

from amends.ports.journal import Commit
from amends.runtime.trunk import TrunkFailed
from amends.values.errors import BadConfiguration, Fenced, Unavailable
from supervisors.invariants import committed
from supervisors.invariants.entities import overdue
from supervisors.invariants.records import Records, Violation
from supervisors.invariants.rest import at_rest, hashed, in_order
from supervisors.simulation.checks import (
    cases_audited,
    inhabited,
    mirrored,
    paused,
    reckoned,
    records_of,
    stopped,
    stored,
)
from supervisors.simulation.chronicle import Chronicle, Happening, ToldBus, ToldDatabase, said
from supervisors.simulation.customers import Customers
from supervisors.simulation.operator import LOOKS, Operator
from supervisors.simulation.weather import Weather
from supervisors.simulation.world import START_US, Running, Terms, World

REST_S: Final = 3600.0
HOUR_S: Final = 3600.0
STEPS_A_RUN: Final = 50_000_000  # callbacks of one runtime, before it counts as a livelock
SIGHTS: Final = 30  # of the detector until a silence is suspected: most of what an idle runtime does is to look
AGAIN_S: Final = 5.0  # who started a process that ended by itself starts it again
STARTS: Final = 1000  # starts in a row that may fail while there are faults


class Wish(Struct, frozen=True, kw_only=True):
    """What is asked for. `keeps` its events, `records` its commits, each of them checked from `watch_from_s` on."""

    seed: int
    hours: float
    nodes: int
    terms: Terms
    kinds: tuple[str, ...]
    keeps: bool = False
    records: bool = False
    watch_from_s: float = -1.0


class Found(Struct, kw_only=True):
    """What a run came to: the world as it stands, and what was counted. `sound_s`: all held then for the last time."""

    wish: Wish
    world: World
    digest: str
    events: int
    happened: list[Happening]
    commits: list[Commit]
    simulated_s: float
    took_s: float
    runtimes: int
    crashes: int
    rests: int
    checks: int
    customers: int
    faults: dict[str, int]
    violations: list[Violation]
    sound_s: float


class Stopped(Exception):
    """Something does not hold: there is nothing to go on for."""


class RandomWorld:
    """See above. `progress` hears of simulated seconds."""

    def __init__(self, wish: Wish, progress: Callable[[float], None] = lambda now_s: None) -> None:
        self._wish, self._progress = wish, progress
        world = self._world = World(wish.seed, wish.terms)
        self._chronicle = Chronicle(lambda: world.time(), keep=wish.keeps)  # noqa: PLW0108 - another one in each run
        self._bus = world.bus = ToldBus()
        world.database = ToldDatabase(self._committed)
        offline_ms = wish.terms.timing["offline_after_ms"]
        assert isinstance(offline_ms, int)
        self._pace_s = offline_ms / 1000
        world.tick_s = world.limits("suspect_after_ms") / 1000 / SIGHTS
        world.provider()
        name = f"amends {wish.seed}"
        self._weather = Weather(world, self._chronicle, seed=f"{name} weather", pace_s=self._pace_s, kinds=wish.kinds,
                                nodes=wish.nodes)  # fmt: skip
        self._customers = Customers(world, self._chronicle, self._weather, seed=f"{name} customers", nodes=wish.nodes)
        self._operator = Operator(self._chronicle, self._weather, seed=f"{name} operator")
        self._end_s, self._rest_s = wish.hours * HOUR_S, 0.0
        self._commits: list[Commit] = []
        self._violations: list[Violation] = []
        self._rests = self._checks = 0
        self._sound_s = self._alive_since_s = 0.0
        self._settled = False

    def run(self) -> Found:
        """To the end of its hours, or to the first thing that does not hold."""
        began, failed = time.process_time(), 0
        world, storm = self._world, self._weather.sky.storm
        while not self._violations:
            self._weather.catch_up()
            self._alive_since_s, before = world.now_s, self._chronicle.count
            try:
                if world.run(self._story, storm, STEPS_A_RUN, self._weather.blow):
                    break
                self._weather.died()
            except Stopped:
                break
            except (Unavailable, TrunkFailed, Fenced, BadConfiguration) as error:
                self._ended_by_itself(error)
                failed = failed + 1 if self._chronicle.count < before + 3 else 0
                if failed > STARTS:
                    self._break("L1", "runtime", "it does not start any more")
                world.now_s += AGAIN_S
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what was looked for
                self._raised(error)
            self._look(records_of(world.database))
        return self._found(time.process_time() - began)

    def _found(self, took_s: float) -> Found:
        return Found(
            wish=self._wish, world=self._world, digest=self._chronicle.digest, events=self._chronicle.count,
            happened=self._chronicle.happened, commits=self._commits, simulated_s=self._world.now_s, took_s=took_s,
            runtimes=self._world.runs, crashes=self._weather.crashes, rests=self._rests, checks=self._checks,
            customers=self._customers.came, faults=dict(self._weather.fired()), violations=self._violations,
            sound_s=self._sound_s,
        )  # fmt: skip

    # --- one runtime ---------------------------------------------------------------------------------

    async def _story(self, running: Running) -> None:
        self._weather.over_runtime(running.links)
        parts: list[Coroutine[Any, Any, None]] = [
            self._hours(running), self._customers.come_and_go(running), self._operator.work(running),
        ]  # fmt: skip
        tasks = [asyncio.create_task(part, name=f"world.{number}") for number, part in enumerate(parts)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)

    async def _hours(self, running: Running) -> None:
        if not self._settled:
            await self._customers.settle_in(running)
            self._settled = True
        while True:
            if self._world.time() >= self._rest_s:
                await self._rest(running)
                if self._world.time() >= self._end_s:
                    return
                self._rest_s = min(self._world.time() + REST_S, self._end_s)
                self._chronicle.note("on")
            self._customers.resting = False
            if self._weather.calm:
                self._weather.brew()
            while self._world.time() < self._rest_s:
                self._progress(self._world.time())
                await asyncio.sleep(min(self._pace_s, self._rest_s - self._world.time()))

    async def _rest(self, running: Running) -> None:
        self._customers.resting = True
        self._weather.clear()
        self._chronicle.note("rest")
        deadline, looked = self._world.time() + self._world.patience_s, -1e9
        while waits := self._waiting(running):
            if self._world.time() > deadline:
                self._break("L1", "world", f"it does not come to rest: {waits[:5]}")
                break
            if self._world.time() >= looked + LOOKS * self._pace_s:
                looked = self._world.time()
                await self._operator.settle(running)
            await asyncio.sleep(self._pace_s / 4)
        records = records_of(self._world.database)
        self._violations += self._at_rest(running, records)
        self._look(records)
        self._rests += 1
        self._chronicle.note(f"at rest, {len(self._violations)} violations")
        if self._violations:
            raise Stopped

    def _waiting(self, running: Running) -> list[str]:
        """What is not at rest."""
        tables = self._world.database.tables
        runs = [f"run of {row['matrix_row']} for {row['entity']}" for row in tables.rows["recovery_run"].values()
                if row["ended_us"] is None]  # fmt: skip
        moving = [f"{kind}:{name} {write.state}" for (kind, name), write in tables.states.items()
                  if write.state in MOVING.get(kind, ()) or (kind == "node" and write.state != "ready")]  # fmt: skip
        debts = [f"debt {row['target_ref']}" for row in tables.rows["debts"].values() if row["settled_us"] is None]
        return running.owed() + runs + moving + debts

    # --- what must hold ------------------------------------------------------------------------------

    def _at_rest(self, running: Running, records: Records) -> list[Violation]:
        world = self._world
        now_us, alive_us = running.core.kernel.clock.now_us(), START_US + int(self._alive_since_s * 1e6)
        return [
            *at_rest(records), *hashed(records), *in_order(self._bus.ever), *overdue(records, now_us, alive_us),
            *mirrored(world), *stored(world), *inhabited(world, records), *reckoned(world, records),
            *self._customers.wronged(records), *stopped(records), *cases_audited(records),
        ]  # fmt: skip

    def _look(self, records: Records) -> None:
        """What must hold at every committed instant."""
        self._checks += 1
        self._violations += [*committed(records), *paused(records), *self._world.broken]
        if not self._violations:
            self._sound_s = self._world.time()

    def _committed(self, commit: Commit) -> None:
        self._chronicle.note(f"commit {said(commit)}")
        if self._wish.records:
            self._commits.append(commit)
        self._verdicts(commit)
        if 0 <= self._wish.watch_from_s <= self._world.time() and not self._violations:
            self._look(records_of(self._world.database))
        if self._violations:
            self._weather.sky.storm.loop.crash()

    def _verdicts(self, commit: Commit) -> None:
        """Whoever is lost was in trouble: a machine that is alive is never compensated for (A7)."""
        for write in commit.states:
            if write.kind == "node" and write.state == "offline" and not self._weather.troubled(write.id):
                self._break("A7", f"node:{write.id}", "it is declared offline, and nothing was wrong with it")

    def _break(self, name: str, ref: str, what: str) -> None:
        self._violations.append(Violation(name, ref, what))

    def _ended_by_itself(self, error: Exception) -> None:
        self._chronicle.note(f"ended {type(error).__name__}: {error}")
        if self._weather.calm and self._settled:
            self._break("L1", "runtime", f"it ends by itself, and nothing is wrong: {type(error).__name__}: {error}")

    def _raised(self, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
        name = "L2" if type(error).__name__ == "Livelock" else "L1"
        self._break(name, "runtime", what)


MOVING: Final = {
    "allocation": ("requested", "provisioning", "activating", "releasing"),
    "attachment": ("requested", "validated", "granted", "mounting", "detaching", "detach_failed"),
}  # fmt: skip
