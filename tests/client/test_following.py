"""Waiting for a state: it may be there already, be told by an event, be read, or never come."""

import asyncio
from contextlib import aclosing
from typing import Any, cast

import pytest

from amends_client import Client, Ended, NoEvents, Rental
from tests.client.scripted import Asked, Script, ok, rental

ASKED = ok(allocation=rental("requested"))


def event(seq: int, to: str) -> dict[str, Any]:
    """An event of the rental."""
    return {
        "schema": f"allocation.{to}/1", "event_id": f"evt_{seq}", "seq": seq, "occurred_us": seq, "from": None,
        "entity": "allocation:alloc_1", "to": to, "data": rental(to), "trace_id": "a" * 32,
    }  # fmt: skip


async def rented(client: Client) -> Rental:
    return await client.allocation.request(account_id="acme", ssh_public_key="…", price="small")


async def test_a_state_that_is_there_is_seen_without_an_event() -> None:
    script = Script(ASKED, ok(**rental("active", access={"user": "u", "host": "h", "port": 1, "host_key": "k",
                                                         "fingerprint": "f"})))  # fmt: skip
    row = await (await rented(script.client())).until("active", timeout_s=60)
    assert row.access is not None
    assert (row.state, row.access.user) == ("active", "u")


async def test_an_event_makes_it_look_again() -> None:
    script = Script(ASKED, ok(**rental("provisioning")), ok(**rental("active")))

    def happens(asked: Asked) -> None:
        if asked.subject == "qry.allocation.get" and script.told.empty():
            script.told.put_nowait(event(3, "active"))

    script.after = happens
    handle = await rented(script.client())
    assert (await handle.until("active", timeout_s=60)).state == "active"
    assert script.followed == [("amends.v1.evt.allocation.alloc_1.>", True)]
    assert (script.slept, handle.row.state) == ([], "active")


async def test_without_events_the_row_is_read_every_second() -> None:
    rows = [ok(**rental(state)) for state in ("requested", "requested", "provisioning", "active")]
    script = Script(ASKED, *rows, readable=False)
    await (await rented(script.client())).until("active", timeout_s=60)
    # at once when it turns out that there are none, and then by the second
    assert script.slept == [1.0, 1.0]


async def test_what_is_no_state_is_said_at_once() -> None:
    script = Script(ASKED)
    handle = await rented(script.client())
    with pytest.raises(ValueError, match="never 'nonsense': its states are requested, "):
        await handle.until("active", cast("Any", "nonsense"))
    with pytest.raises(ValueError, match="never nothing"):
        await handle.until()
    assert len(script.asked) == 1


async def test_what_can_never_come_ends_the_wait_with_the_failure() -> None:
    script = Script(ASKED, ok(**rental("failed", failure_code="no_capacity")))
    with pytest.raises(Ended, match=r"alloc_1 is failed \(no_capacity\), and can never be active") as caught:
        await (await rented(script.client())).until("active", timeout_s=60)
    assert (caught.value.code, caught.value.state) == ("no_capacity", "failed")
    # nor does what was passed by come back
    script = Script(ASKED, ok(**rental("released")))
    with pytest.raises(Ended, match="is released"):
        await (await rented(script.client())).until("active", "provisioning", timeout_s=60)


async def test_the_wait_itself_may_end_and_leaves_nothing_running() -> None:
    script = Script(ASKED, ok(**rental("requested")))
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError, match=r"alloc_1: requested> is not active after 0\.01 s"):
        await (await rented(script.client())).until("active", timeout_s=0.01)
    assert asyncio.all_tasks() == before


async def test_events_come_once_and_after_the_one_that_is_named() -> None:
    script = Script()
    for seq, to in ((1, "requested"), (2, "provisioning"), (2, "provisioning"), (3, "activating"), (1, "requested")):
        script.told.put_nowait(event(seq, to))
    script.told.put_nowait(event(4, "active"))
    found = []
    async with aclosing(script.client().events("allocation", "alloc_1", after=1)) as events:
        async for one in events:
            found.append((one.seq, one.to))
            if one.to == "active":
                break
    assert found == [(2, "provisioning"), (3, "activating"), (4, "active")]
    assert script.followed == [("amends.v1.evt.allocation.alloc_1.>", False)]


async def test_who_may_not_read_events_is_told_and_no_subject_is_made_up() -> None:
    for identifier, error in (("alloc_1", NoEvents), ("a.>", ValueError)):
        async with aclosing(Script(readable=False).client().events("allocation", identifier)) as events:
            with pytest.raises(error):
                await anext(events)


def test_a_state_of_a_later_release_may_lead_anywhere() -> None:
    kind = Script().client().node._kind
    assert kind.may_become("suspect", ["retired"])
    assert not kind.may_become("retired", ["ready"])
    assert kind.may_become("asleep", ["ready"])
