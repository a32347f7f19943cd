"""The journal writer: one commit for many, a refused or locked turn alone, an unreachable database waited for."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from amends.ports.journal import Commit, Head, Requirement, StateWrite, StoredActor, Turn
from amends.runtime.writer import ALONE_S, JournalWriter, Pending
from amends.values.canonical import ZERO_HASH
from amends.values.errors import Locked, Refused, TurnFailed, Unavailable
from amends.values.records import AuditDraft, AuditRow
from tests.patience import PATIENCE_S

START = Head(1, 0, 0, ZERO_HASH)


class Memory:
    """A journal in memory that refuses, locks or is away as told."""

    def __init__(self) -> None:
        self.head = START
        self.commits: list[list[str]] = []
        self.refused: set[str] = set()
        self.held: set[str] = set()
        self.rows: set[str] = set()  # turns that write a row, no state's, which a foreign session holds
        self.away = self.lost = 0
        self.shut: dict[str, str] = {}
        self.asked = 0
        self.gate = asyncio.Semaphore(1_000_000)  # so many commits may be done

    async def commit(self, commit: Commit) -> None:
        self.asked += 1
        await self.gate.acquire()
        await asyncio.sleep(0)
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        names = [write.id for write in commit.states]
        if self.shut or self.held & set(names) or self.rows & set(names):
            raise Locked("held")
        if self.refused & set(names):
            raise Refused("P0001", "no")
        assert commit.before == self.head, "commits are serial on one head"
        self.head = commit.after
        self.commits.append(names)
        if self.lost:
            self.lost -= 1
            raise Unavailable("the reply was lost")

    async def settled(self, commit: Commit) -> bool:
        await asyncio.sleep(0)
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        return self.head == commit.after

    async def closed(self) -> dict[str, str]:
        return self.shut

    async def locked(self, writes: Sequence[StateWrite]) -> set[tuple[str, str]]:
        return {(write.kind, write.id) for write in writes if write.id in self.held}

    async def read_actor(self, kind: str, identifier: str) -> StoredActor | None:
        return None


class Bench:
    def __init__(self, journal: Memory, writer: JournalWriter) -> None:
        self.journal, self.writer = journal, writer
        self.ended: dict[str, TurnFailed | None] = {}

    def submit(self, name: str, requires: list[Requirement] | None = None, details: Any = None) -> None:
        turn = Turn()
        if details is not None:
            turn.audits = [AuditDraft("aud_1", 1, "me", "x", name, None, None, "", "", "", "", 1, details)]
        turn.kind, turn.id, turn.state, turn.version = "thing", name, "on", 2
        turn.requires = requires or []
        self.writer.submit(Pending(turn, lambda error: self.ended.__setitem__(name, error)))

    async def wait(self, *names: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not set(names) <= set(self.ended):
                await asyncio.sleep(0.001)


@asynccontextmanager
async def bench(holds: Callable[[Bench], bool] = lambda it: True) -> AsyncIterator[Bench]:
    journal: Any = Memory()
    made: list[Bench] = []
    writer = JournalWriter(journal, START, (AuditRow,), lambda requirement: holds(made[0]), lambda: 0)
    made.append(Bench(journal, writer))
    task = asyncio.create_task(writer.run())
    yield made[0]
    task.cancel()
    await asyncio.wait({task})


NAMES = [f"t{number}" for number in range(200)]


async def test_turns_that_wait_share_one_commit() -> None:
    async with bench() as it:
        for name in NAMES:
            it.submit(name)
        await it.wait(*NAMES)
        assert it.journal.commits == [NAMES]
        assert it.writer.head.seq == 200


async def at_the_database(it: Bench, commits: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while it.journal.asked < commits:
            await asyncio.sleep(0.001)


async def test_what_follows_a_commit_is_carried_out_while_the_next_one_is_at_the_database() -> None:
    async with bench() as it:
        it.journal.gate = asyncio.Semaphore(0)
        it.submit("t0")
        await at_the_database(it, 1)
        it.submit("t1")
        it.journal.gate.release()
        await it.wait("t0")
        assert (it.journal.asked, list(it.ended)) == (2, ["t0"])
        it.journal.gate.release()
        await it.wait("t1")


async def test_a_turn_that_requires_another_is_judged_once_all_is_carried_out() -> None:
    async with bench(lambda it: "t0" in it.ended) as it:
        it.journal.gate = asyncio.Semaphore(0)
        it.submit("t0")
        await at_the_database(it, 1)
        it.submit("t1", [("thing", "t0", ("on",), None)])
        for _ in range(2):
            it.journal.gate.release()
        await it.wait("t0", "t1")
        assert it.ended == {"t0": None, "t1": None}


async def test_what_somebody_may_have_seen_in_the_database_is_known_once_it_is_carried_out() -> None:
    async with bench() as it:
        assert it.writer.known() is None, "nothing has been tried"
        it.journal.gate = asyncio.Semaphore(0)
        it.submit("t0")
        await at_the_database(it, 1)
        first = it.writer.known()
        assert first is not None
        assert it.writer.known() is first, "one for all that ask while it is under way, however long that is"
        first.add_done_callback(lambda _: it.ended.setdefault("known", None))
        it.submit("t1")
        it.journal.gate.release()
        await at_the_database(it, 2)
        second = it.writer.known()
        assert second is not None
        async with asyncio.timeout(PATIENCE_S):
            await first
        assert (list(it.ended), second.done()) == (["t0", "known"], False), "t1 may be seen by now"
        it.journal.gate.release()
        async with asyncio.timeout(PATIENCE_S):
            await second
        assert "t1" in it.ended
        assert it.writer.known() is None


async def test_what_was_refused_is_known_as_well() -> None:
    async with bench() as it:
        it.journal.refused = {"t0"}
        it.journal.gate = asyncio.Semaphore(0)
        it.submit("t0")
        await at_the_database(it, 1)
        known = it.writer.known()
        assert known is not None
        it.journal.gate.release()
        async with asyncio.timeout(PATIENCE_S):
            await known
        assert isinstance(it.ended["t0"], Refused)


async def test_a_refused_turn_fails_alone() -> None:
    async with bench() as it:
        it.journal.refused = {"t77"}
        for name in NAMES:
            it.submit(name)
        await it.wait(*NAMES)
        assert [name for name, error in it.ended.items() if error is not None] == ["t77"]
        assert sorted(name for names in it.journal.commits for name in names) == sorted(set(NAMES) - {"t77"})
        assert it.journal.asked < 20, "divided, not tried one by one"


async def test_a_locked_turn_waits_alone_and_commits_when_it_is_free() -> None:
    async with bench() as it:
        it.journal.held = {"t5"}
        for name in NAMES:
            it.submit(name)
        others = [name for name in NAMES if name != "t5"]
        await it.wait(*others)
        assert "t5" not in it.ended
        assert it.journal.asked <= 3, "the held row is asked after, not waited for"
        it.journal.held = set()
        await it.wait("t5")
        assert it.ended["t5"] is None


async def test_while_the_database_is_away_nothing_fails_and_nothing_is_lost() -> None:
    async with bench() as it:
        it.journal.away = 2
        it.submit("t1")
        await it.wait("t1")
        assert it.ended["t1"] is None
        assert it.writer.breaker.closed
        assert it.writer.breaker.opened == 1, "two tries that failed are one outage"


async def test_a_requirement_that_no_longer_holds_refuses_its_turn_alone() -> None:
    async with bench(lambda it: False) as it:
        it.submit("free")
        it.submit("bound", [("node", "n1", ("ready",), 1)])
        await it.wait("free", "bound")
        refused = it.ended["bound"]
        assert isinstance(refused, Refused)
        assert refused.code == "requirement"
        assert it.ended["free"] is None


async def test_a_turn_that_requires_a_neighbour_of_its_batch_waits_for_the_neighbour_to_commit() -> None:
    async with bench() as it:
        it.submit("n1")
        it.submit("bound", [("thing", "n1", ("on",), None)])
        await it.wait("n1", "bound")
        assert it.journal.commits == [["n1"], ["bound"]]


async def test_two_turns_that_require_each_other_do_not_stand_in_each_others_way() -> None:
    async with bench() as it:
        it.submit("n1", [("thing", "n2", ("on",), None)])
        it.submit("n2", [("thing", "n1", ("on",), None)])
        await it.wait("n1", "n2")
        assert it.journal.commits == [["n1"], ["n2"]]


async def test_a_lock_on_the_whole_table_is_said_and_waited_for_and_loses_no_turn() -> None:
    async with bench() as it:
        it.journal.shut = {"thing": "things"}
        for name in NAMES[:20]:
            it.submit(name)
        while not it.writer.waiting:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)  # long enough to be asked after several times
        assert (it.ended, it.writer.waiting) == ({}, 20)
        assert it.writer.trouble == "a foreign session locks things: 20 turns wait"
        assert it.journal.asked == 1, "nothing is divided and tried that cannot be written"
        it.journal.shut = {}
        await it.wait(*NAMES[:20])
        assert set(it.ended.values()) == {None}
        assert (it.writer.waiting, it.writer.trouble) == (0, "")


async def test_a_lock_on_a_row_that_is_no_state_is_met_alone_and_seldom() -> None:
    async with bench() as it:
        it.journal.rows = {"t5"}
        for name in NAMES:
            it.submit(name)
        await it.wait(*(name for name in NAMES if name != "t5"))
        asked = it.journal.asked
        assert asked < 30, "divided once"
        loop = asyncio.get_running_loop()
        began = loop.time()
        # then what comes after is committed whole, and the one that waits is tried by itself
        for number in range(100):
            it.submit(f"later{number}")
            await asyncio.sleep(0.005)
        await it.wait(*(f"later{number}" for number in range(100)))
        assert [names for names in it.journal.commits if "t5" in names] == []
        assert it.journal.asked - asked <= 100 + 2 * (2 + (loop.time() - began) / ALONE_S)
        it.journal.rows = set()
        await it.wait("t5")
        assert it.journal.commits[-1] == ["t5"]


async def test_what_waited_out_an_outage_is_decided_anew_before_it_commits() -> None:
    async with bench() as it:
        decided: list[str] = []

        def again() -> Pending | None:
            decided.append("anew")
            turn = Turn()
            turn.kind, turn.id, turn.state, turn.version = "thing", "second thought", "on", 2
            return Pending(turn, lambda error: it.ended.__setitem__("second thought", error))

        it.journal.away = 3
        turn = Turn()
        turn.kind, turn.id, turn.state, turn.version = "thing", "first thought", "on", 2
        it.writer.submit(Pending(turn, lambda error: it.ended.__setitem__("first thought", error), again=again))
        it.submit("other")
        await it.wait("second thought", "other")
        assert (decided, it.journal.commits) == (["anew"], [["second thought", "other"]])
        assert "first thought" not in it.ended


async def test_a_turn_that_no_longer_has_anything_to_commit_after_an_outage_is_dropped() -> None:
    async with bench() as it:
        it.journal.away = 1
        turn = Turn()
        turn.kind, turn.id, turn.state, turn.version = "thing", "obsolete", "on", 2
        it.writer.submit(Pending(turn, lambda error: it.ended.__setitem__("obsolete", error), again=lambda: None))
        it.submit("other")
        await it.wait("other")
        assert it.journal.commits == [["other"]]


async def test_a_batch_whose_commit_was_lost_but_arrived_is_not_decided_again() -> None:
    async with bench() as it:
        it.journal.lost = 1
        it.submit("t1")
        await it.wait("t1")
        assert (it.journal.commits, it.ended) == ([["t1"]], {"t1": None})


async def test_what_must_be_recent_is_decided_anew_when_it_has_waited() -> None:
    async with bench() as it:
        turn = Turn()
        turn.kind, turn.id, turn.state, turn.version = "thing", "old", "on", 2
        fresh = Turn()
        fresh.kind, fresh.id, fresh.state, fresh.version = "thing", "new", "on", 2
        it.writer.submit(
            Pending(
                turn, lambda error: None, recent=True, decided_us=-60_000,
                again=lambda: Pending(fresh, lambda error: it.ended.__setitem__("new", error), recent=True),
            )
        )  # fmt: skip
        await it.wait("new")
        assert it.journal.commits == [["new"]]


async def test_what_cannot_be_written_as_json_refuses_its_own_turn_alone() -> None:
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    async with bench() as it:
        it.submit("t1", details={"fine": 1})
        it.submit("deep", details={"inventory": nested})
        it.submit("t2")
        await it.wait("t1", "deep", "t2")
        refused = it.ended["deep"]
        assert isinstance(refused, Refused)
        assert refused.code == "unsealable"
        assert (it.ended["t1"], it.ended["t2"]) == (None, None)
    while nested:  # level by level: the interpreter's own deletion would recurse
        nested = nested.pop()
