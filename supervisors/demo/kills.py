"""The runtime killed with -9: started again in the middle of an undo, and replaced by one that stood by."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from supervisors.demo.loss import RATE, bill
from supervisors.demo.result import Result, ended, expect
from supervisors.demo.site import DemoFailed, Site

Tick = Callable[[str, float | None], Awaitable[None]]


async def crash(site: Site, say: Tick) -> Result:
    """Kill -9 of the runtime in the middle of a compensation, and start it again."""
    assert site.fleet is not None
    began = time.monotonic()
    node = await site.free_node()
    await site.fleet.fault(node, "key-install", "exit", times=1, exit_status=1)
    await site.fleet.fault(node, "user-remove", "delay", times=1, seconds=1.5)
    allocation = await site.request(node_id=node)
    entity = f"allocation:{allocation}"
    await site.until_sql(
        "the undo has begun",
        "SELECT count(*) = 1 FROM public_v1.step WHERE entity = $1 AND name = 'ssh.user-remove' AND state = 'intended'",
        entity,
    )
    await asyncio.sleep(0.2)  # let the command reach the node: the kill shall fall into its middle
    before = await site.value("SELECT count(*) FROM public_v1.audit_log")
    dead = time.monotonic()
    await site.kill()
    await say("killed the runtime with -9 while user-remove was running on " + node, None)
    await site.start_runtime()
    await say("started again: the gap", (time.monotonic() - dead) * 1000)
    await site.allocation_is(allocation, "failed")
    await ended(site, entity, "recovered", "R02")
    undone = await expect(
        site, entity, [("reverse", "side_effect", "success"), ("rollback", "state_change", "success")]
    )
    lost = before - await site.value("SELECT count(*) FROM public_v1.audit_log WHERE seq <= $1", before)
    doubled = await site.value(
        "SELECT count(*) FROM (SELECT comp_key FROM public_v1.compensation GROUP BY comp_key HAVING count(*) > 1) AS d"
    )
    users = await site.fleet.users(node)
    if lost or doubled or users:
        raise DemoFailed(f"after the kill: {lost} records lost, {doubled} doubled, users left: {users}")
    await say("lost: nothing; doubled: nothing; the user is gone from the node", None)
    return Result("R02 + kill -9", "runtime killed in mid-undo", undone, "recovered", (time.monotonic() - began) * 1000)


async def take_over(site: Site, say: Tick) -> Result:
    """A second runtime waits; the first is killed while one rental runs and another is being set up."""
    assert site.fleet is not None
    running = await site.request(rate_uminor_per_hour=RATE)
    await site.allocation_is(running, "active")
    await site.start_standby()
    await say("a second runtime stands by: it has the same Postgres and NATS, and waits for the lease", None)
    node = await site.free_node()
    await site.fleet.fault(node, "key-install", "delay", times=1, seconds=1.5)
    begun = await site.request(node_id=node)
    await site.until_sql(
        "the set-up is under way",
        "SELECT count(*) = 1 FROM public_v1.step WHERE entity = $1 AND name = 'ssh.key-install' AND state = 'intended'",
        f"allocation:{begun}",
    )
    meters = await site.rows("SELECT meter_id, started_us, stopped_us FROM public_v1.meter ORDER BY meter_id")
    epoch, dead = await site.epoch(), time.monotonic()
    await site.kill()
    await say("killed the first with -9 while key-install was running on " + node, None)
    await site.taken_over()
    gap_ms = (time.monotonic() - dead) * 1000
    await say(f"the second serves, in epoch {await site.epoch()} after {epoch}: the gap", gap_ms)
    if meters != await site.rows(
        "SELECT meter_id, started_us, stopped_us FROM public_v1.meter WHERE meter_id = ANY($1) ORDER BY meter_id",
        [meter["meter_id"] for meter in meters],
    ):
        raise DemoFailed("a meter is not what it was before the take-over")
    await site.allocation_is(running, "active")
    await site.allocation_is(begun, "active")
    for allocation in (running, begun):
        await site.ask("cmd.allocation.release", {"allocation_id": allocation})
        await site.allocation_is(allocation, "released")
    await say(f"what ran, ran on under the same meter. {await bill(site, running)}", None)
    undone = await expect(site, f"allocation:{begun}", []) or "nothing: the set-up went on"
    return Result("kill -9 + standby", "runtime killed in mid-set-up", undone, "taken over", gap_ms)
