"""Another domain lives, fails and is compensated on the same kernel, without any rental code."""

import asyncio
import time
from typing import Any

import asyncpg

from amends.kernel import Kernel
from amends.turn.messages import Envelope
from examples.switch_port import Bind, Switch
from tests.kernel.conftest import Running, served
from tests.patience import PATIENCE_S


async def port_is(kernel: Kernel, port: str, state: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = await kernel.journal.read_actor("port", port)
        if found is not None and f'"state": "{state}"'.encode() in found.body:
            return
        assert time.monotonic() < deadline, f"{port} is not {state}: {found}"
        await asyncio.sleep(0.01)


async def bound(kernel: Kernel, *ports: str) -> None:
    """Have each port bound to a machine of its name."""
    for port in ports:
        kernel.engine.tell("port", port, Envelope(Bind(port), priority=True))
        await port_is(kernel, port, "bound")


async def some(dsn: str, query: str, count: int = 1) -> list[dict[str, Any]]:
    """What the query gives, once it gives that many rows."""
    deadline = time.monotonic() + PATIENCE_S
    while len(rows := await sql(dsn, query)) < count:
        assert time.monotonic() < deadline, rows
        await asyncio.sleep(0.02)
    return rows


async def sql(dsn: str, query: str) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [dict(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def test_a_port_is_bound_over_its_two_steps(running: Running, switch: Switch, dsn: str) -> None:
    async with running() as kernel:
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        await port_is(kernel, "p1", "bound")
        assert switch.calls == ["vlan.set", "port.up"]
        assert switch.vlan == {"m1"}
        assert await sql(dsn, "SELECT * FROM compensation") == []


async def test_a_failed_step_is_undone_and_recorded(running: Running, switch: Switch, dsn: str) -> None:
    switch.failing = {"port.up"}
    async with running() as kernel:
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        await port_is(kernel, "p1", "unbound")
        assert switch.calls == ["vlan.set", "port.up", "vlan.clear"]
        assert switch.vlan == set()
        (compensation,) = await sql(dsn, "SELECT compensation_type, outcome, target_ref FROM compensation")
        assert compensation == {"compensation_type": "reverse", "outcome": "success", "target_ref": "port:p1"}
        (run,) = await sql(dsn, "SELECT matrix_row, final_outcome FROM recovery_run")
        assert run == {"matrix_row": "S1", "final_outcome": "recovered"}


async def test_an_undo_that_fails_ends_in_a_case(running: Running, switch: Switch, dsn: str) -> None:
    switch.failing = {"port.up", "vlan.clear"}
    async with running() as kernel:
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        await port_is(kernel, "p1", "unbound")
        (case,) = await sql(dsn, "SELECT kind, state, target_ref FROM ops_case")
        assert case == {"kind": "port_stuck", "state": "open", "target_ref": "port:p1"}
        (run,) = await sql(dsn, "SELECT final_outcome FROM recovery_run")
        assert run == {"final_outcome": "failed"}


async def test_a_step_that_a_crash_cut_off_is_resumed(running: Running, switch: Switch, dsn: str) -> None:
    hang, begun = asyncio.Event(), asyncio.Event()
    inner = switch.run

    async def stuck(call: Any) -> Any:
        if call.name == "port.up" and not hang.is_set():
            begun.set()
            await asyncio.sleep(3600)
        return await inner(call)

    switch.run = stuck  # type: ignore[method-assign]
    async with running() as kernel:
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        async with asyncio.timeout(PATIENCE_S):
            await begun.wait()
        # leaving without a drain: the intent of port.up is committed, its outcome is not known
    hang.set()
    async with running() as kernel:
        assert kernel.recovered["steps"] == 1
        await port_is(kernel, "p1", "bound")
    assert switch.calls == ["vlan.set", "port.up"]


async def test_what_a_new_turn_asks_for_is_not_taken_up_as_left_over(
    running: Running, loaded: Running, switch: Switch
) -> None:
    # given a step that a crash has cut off
    inner = switch.run

    async def stuck(call: Any) -> Any:
        await asyncio.sleep(3600)

    switch.run = stuck  # type: ignore[method-assign]
    async with running() as kernel:
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        await port_is(kernel, "p1", "binding")
    switch.run = inner  # type: ignore[method-assign]
    async with loaded() as kernel, served(kernel):
        # when another actor's turn commits before what was left is taken up
        switch.run = stuck  # type: ignore[method-assign]
        kernel.engine.tell("port", "p2", Envelope(Bind("m2"), priority=True))
        await port_is(kernel, "p2", "binding")
        await kernel.resume()
        # then the new turn's step is not taken up a second time
        assert kernel.recovered["steps"] == 1
        assert kernel.dispatcher.running + kernel.dispatcher.waiting == 2
