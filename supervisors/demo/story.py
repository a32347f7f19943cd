"""The demo's story, scene by scene. Exit status 0 only if all ended as the matrix says."""

import asyncio
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from adapters.simulated.fleet_client import Fleet
from amends.values.errors import Unavailable
from supervisors.closing import HARD, watch
from supervisors.demo.aftermath import REASON, drop_trigger, give_back
from supervisors.demo.kills import crash, take_over
from supervisors.demo.operator import types
from supervisors.demo.proofs import prove
from supervisors.demo.result import Result
from supervisors.demo.rows import ROWS, STORY
from supervisors.demo.site import CLOSE_WITHIN_S, DemoFailed, Site
from supervisors.demo.teller import Teller
from supervisors.paths import made_directory

NODES = 20


async def demo(*, row: str = "", slow: bool = False, keep: bool = False, nodes: int = NODES, state: str = "") -> int:
    """Run it; the exit status. Raises `BadConfiguration` for a `state` that cannot be used."""
    if nodes < 2 and not row:
        print("amends: --nodes: the whole story needs two machines at least, one of which is lost", file=sys.stderr)
        return 2
    if row and row not in ROWS:
        print(f"amends: --row {row} cannot be shown; this release has {', '.join(ROWS)}", file=sys.stderr)
        return 2
    tell = Teller(slow=slow)
    state_dir = Path(state).absolute() if state else Path(tempfile.mkdtemp(prefix="amends-demo-"))
    made_directory(state_dir, "--state-dir")
    site = Site(state_dir, nodes, keeps=keep, stays=bool(state))
    good = stopped = False
    _end_on_signals()
    try:
        await _start(site, tell, nodes)
        if keep:
            await tell.say(f"watch it: {await site.login_link()} (logs in once, within five minutes)")
        if not row:
            await _rental(site, tell)
        results = await _rows(site, tell, row)
        if not row:
            results.append(await _crash(site, tell))
            results.append(await _take_over(site, tell))
            results.append(await _case(site, tell))
        good = await prove(site, tell, results)
        await tell.say("")
        await tell.tick(f"done in {tell.elapsed_s:.1f} s", good=good)
        if keep:
            await _keep(site, tell)
    except (DemoFailed, Unavailable, TimeoutError) as error:
        await tell.tick(str(error) or type(error).__name__, good=False)
        await tell.say(f"the runtime's log: {site.log_file}")
        return 1
    except asyncio.CancelledError:
        stopped = True
        return 0 if good else 1  # Ctrl-C: what was shown by then counts
    else:
        return 0 if good else 1
    finally:
        timer = watch(CLOSE_WITHIN_S, lambda: ["the demo's processes"])
        await site.close()
        timer.cancel()
        if not state and (good or stopped):  # of one that failed everything is left to be looked at
            shutil.rmtree(state_dir, ignore_errors=True)


def _end_on_signals() -> None:
    """Ctrl-C and SIGTERM end the story, a second one at once; also where they were inherited as ignored (nohup, &)."""
    loop, this, came = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()

    def on_signal() -> None:
        if came.is_set():
            os._exit(HARD)
        came.set()
        if this is not None:
            this.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)


async def _start(site: Site, tell: Teller, nodes: int) -> None:
    await tell.scene("Start")
    await tell.tick("Postgres and NATS are up", await site.start_servers())
    await tell.tick("runtime ready: lease taken, schema made", await site.start_runtime())
    await site.connect()
    broken = await drop_trigger(site)
    began = time.monotonic()
    site.fleet = await Fleet.spawn(
        nodes=nodes, nats_url=site.nats_url, client_key_line=site.endpoints["ssh_public_key"],
        state_dir=site.state_dir / "fleet", interval_ms=200, log_file=site.state_dir / "fleet.log",
        users={f"node-{number}": site.users.of_node(f"node-{number}") for number in range(1, nodes + 1)},
    )  # fmt: skip
    await tell.tick(
        f"{nodes} machines up: SSH servers and agents in a process of their own", (time.monotonic() - began) * 1000
    )
    began = time.monotonic()
    for node_id, node in site.fleet.nodes.items():
        ssh = {"host": node["host"], "port": node["port"], "host_key": node["host_key"]}
        if not await site.make("cmd.node.register", {"node_id": node_id, "ssh": ssh, "labels": node["labels"]}):
            await site.ask("ops.node.update", {"node_id": node_id, "ssh": ssh, "reason": REASON})
    await site.make("cmd.account.create", {"account_id": "acme", "currency": "usd"})
    left = await give_back(site)
    if broken or left:
        await tell.tick(f"an earlier demo was killed here: {left} rentals and cases put right")
    await site.until_sql(
        "all nodes are ready", "SELECT count(*) = $1 FROM public_v1.node WHERE state = 'ready'", nodes, timeout_s=30
    )
    await tell.tick(f"{nodes} nodes heard, probed over SSH and ready", (time.monotonic() - began) * 1000)


async def _rental(site: Site, tell: Teller) -> None:
    await tell.scene("One rental, step by step")
    began = time.monotonic()
    allocation = await site.request()
    await tell.tick(f"requested {allocation}", (time.monotonic() - began) * 1000)
    await site.allocation_is(allocation, "active")
    await tell.tick("active: reserved, user created, key installed, meter running", (time.monotonic() - began) * 1000)
    began = time.monotonic()
    await site.ask("cmd.allocation.release", {"allocation_id": allocation})
    await site.until_sql(
        "released and clean",
        "SELECT state = 'released' AND NOT cleanup_pending FROM public_v1.allocation WHERE allocation_id = $1",
        allocation,
    )
    await tell.tick("released: clock stopped, customer locked out, node clean", (time.monotonic() - began) * 1000)
    steps = await site.rows(
        "SELECT name, ended_us - started_us AS us FROM public_v1.step WHERE entity = $1 ORDER BY started_us",
        f"allocation:{allocation}",
    )
    await tell.say(" → ".join(f"{step['name']} {step['us'] / 1000:.0f} ms" for step in steps))


async def _rows(site: Site, tell: Teller, only: str) -> list[Result]:
    results = []
    for name, provoke in ROWS.items():
        if only and name != only:
            continue
        await tell.scene(f"{name}: {STORY[name]}")
        result = await provoke(site, tell)
        results.append(result)
        await tell.say(f"broken: {result.broken}")
        await tell.tick(f"made amends: {result.undone} → {result.outcome}", result.ms)
    return results


async def _crash(site: Site, tell: Teller) -> Result:
    await tell.scene("kill -9 in the middle of a compensation")
    result = await crash(site, tell.tick)
    await tell.tick(f"the same undo went on: {result.undone} → {result.outcome}", result.ms)
    return result


async def _take_over(site: Site, tell: Teller) -> Result:
    await tell.scene("kill -9 while a second runtime stands by")
    result = await take_over(site, tell.tick)
    await tell.tick("both rentals went on under the second, were released and billed")
    return result


async def _case(site: Site, tell: Teller) -> Result:
    """A failure that retries cannot settle, and the command that does."""
    assert site.fleet is not None
    await tell.scene("What retries cannot settle: an operator case")
    began = time.monotonic()
    allocation = await site.request()
    await site.allocation_is(allocation, "active")
    node = await site.value("SELECT node_id FROM public_v1.allocation WHERE allocation_id = $1", allocation)
    await site.fleet.ssh_stop(node)
    await site.ask("cmd.allocation.release", {"allocation_id": allocation})
    case = await site.until_sql(
        "the case",
        """SELECT case_id FROM public_v1.ops_case
           WHERE kind = 'cleanup_exhausted' AND state = 'open' AND target_ref = $1""",
        f"allocation:{allocation}",
    )
    await tell.tick(f"{node} lost its SSH; three tries, then {case}: cleanup_exhausted, {node} in quarantine")
    await tell.say("the rental is over and costs nothing more; the customer could not be locked out (lockout_failed),")
    await tell.say("and the node waits. SSH comes back, an operator types:")
    await site.fleet.ssh_start(node)
    await types(site, tell, "retry", "cleanup", allocation, "--reason", "SSH is back")
    await site.until_sql(
        "the node is ready again", "SELECT state = 'ready' FROM public_v1.node WHERE node_id = $1", node
    )
    state = await site.value("SELECT state FROM public_v1.ops_case WHERE case_id = $1", case)
    if state != "resolved":
        raise DemoFailed(f"the case is {state}, not resolved")
    ms = (time.monotonic() - began) * 1000
    await tell.tick("cleaned, case resolved, node reconciled and back in service", ms)
    return Result("R04 + operator", "SSH gone for good", "reverse side_effect", "recovered", ms)


async def _keep(site: Site, tell: Teller) -> None:
    await tell.say(f"kept running. Try: {shlex.join(['amends', 'tree', '--state-dir', str(site.state_dir)])}")
    await tell.say(f"console: {await site.login_link()} (logs in once, within five minutes)")
    await tell.say(f"metrics: {site.endpoints['http_url']}/metrics")
    await tell.say("Ctrl-C ends it.")
    await asyncio.Event().wait()
