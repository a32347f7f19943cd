"""A runtime's first and last anchor: a commit that its database's owner appends between two runtimes shows."""

import asyncio

import pytest

from adapters.postgres.digests import verify_digests
from adapters.postgres.journal import journal_of
from amends.domain.domain import covered, rows_of
from amends.kernel import Kernel
from amends.ports.journal import Turn
from amends.runtime.writer import Pending
from amends.turn.messages import Envelope
from amends.turn.seal import seal
from amends.values.anchors import SLIPPED_IN, Anchored, gaps
from examples.switch_port import SWITCH, Bind
from tests.kernel.conftest import Running, served
from tests.kernel.test_switch_port import port_is


class Notebook:
    """A notary that keeps what it was given."""

    def __init__(self) -> None:
        self.kept: list[Anchored] = []

    def sign(self, heads: Anchored) -> Anchored:
        return heads

    async def keep(self, anchored: Anchored) -> None:
        self.kept.append(anchored)

    def detail(self) -> dict[str, object]:
        return {}


@pytest.fixture
def book() -> Notebook:
    return Notebook()


async def life(loaded: Running, book: Notebook, *, port: str = "", drained: bool = True) -> Kernel:
    """A kernel's whole life on the database; with a port, it binds that one."""
    async with loaded(book) as kernel:
        await kernel.resume()
        async with served(kernel):
            if port:
                kernel.engine.tell("port", port, Envelope(Bind("m1"), priority=True))
                await port_is(kernel, port, "bound")
            if drained:
                assert await kernel.drain(10)
        await kernel.close_chain()
    return kernel


async def forge(dsn: str, epoch: int) -> None:
    """What an owner can do that knows how a commit is made: a turn of its own, on top of the head."""
    journal = journal_of(dsn, epoch, (SWITCH,))
    turn = Turn()
    turn.kind, turn.id, turn.state, turn.version, turn.body = "port", "forged", "bound", 1, "{}"
    await journal.commit(seal([turn], await journal.head(), rows_of((SWITCH,))))
    await journal.aclose()


async def test_a_commit_appended_while_no_runtime_runs_is_told(loaded: Running, dsn: str, book: Notebook) -> None:
    # given a runtime that has ended cleanly, and another one after it
    await life(loaded, book, port="p1")
    await life(loaded, book, port="p2")
    assert [anchor.mark for anchor in book.kept] == ["opening", "closing"] * 2
    assert gaps(book.kept) == []
    # when the owner appends a commit, and the next runtime starts on it
    await forge(dsn, 2)
    await life(loaded, book)
    # then both chains and each single anchor hold, but not the last one of a runtime and the first of the next
    assert (await verify_digests(dsn, covered((SWITCH,)), book.kept)).findings == []
    (gap,) = gaps(book.kept)
    assert (gap.wrong, gap.what, gap.last - gap.first) == (True, SLIPPED_IN, 0)


async def test_a_runtime_that_is_not_sure_of_its_end_writes_no_last_anchor(loaded: Running, book: Notebook) -> None:
    await life(loaded, book, port="p1", drained=False)
    assert [anchor.mark for anchor in book.kept] == ["opening"]
    # nor does one that has lost the lease, or that has not committed all it decided
    async with loaded(book) as kernel:
        async with served(kernel):
            assert await kernel.drain(10)
        kernel.writer.submit(Pending(Turn(), lambda error: None))
        await kernel.close_chain()
    async with loaded(book) as kernel:
        async with served(kernel):
            assert await kernel.drain(10)
        kernel.lease.fence()
        await kernel.close_chain()
    assert [anchor.mark for anchor in book.kept] == ["opening"]


async def test_a_commit_of_which_nobody_knows_the_end_is_in_doubt(
    loaded: Running, book: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with loaded(book) as kernel:
        begun = asyncio.Event()

        async def commit(*args: object) -> None:
            begun.set()
            await asyncio.Event().wait()

        async with served(kernel):
            assert await kernel.drain(10)
            monkeypatch.setattr(kernel.journal, "commit", commit)
            kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
            await begun.wait()
        assert kernel.writer.waiting == 0
        await kernel.close_chain()
    assert book.kept == []
