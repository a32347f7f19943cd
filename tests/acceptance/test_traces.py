"""Traces from outside: what is recorded arrives at an OTLP receiver, whatever happens to it and to the runtime."""

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from adapters.otel.verify import verify
from tests.acceptance.records import all_is_well
from tests.acceptance.world import World, until
from tests.adapters.otel.receiver import Receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def world(state_dir: Path, receiver: Receiver) -> AsyncIterator[World]:
    headers = '{ authorization = "Bearer a-receivers-token" }'
    made = World(state_dir, f'[otlp]\nendpoint = "{receiver.url}"\nheaders = {headers}\n')
    await made.start()
    await made.connect()
    await made.account("acme")
    yield made
    await all_is_well(made)
    await made.stop()


async def broken_setup(world: World) -> str:
    """A rental whose key cannot be installed (R02); its id."""
    machine = await world.add_machine()
    machine.fault("key-install", "exit", exit_status=1)
    allocation_id = await world.request(node_id=machine.node_id)
    await world.allocation_is(allocation_id, "failed")
    return allocation_id


async def differences(world: World, receiver: Receiver) -> list[str]:
    compensations = await world.rows("SELECT * FROM public_v1.compensation")
    return verify(compensations, receiver.spans)


async def test_every_compensation_arrives_as_a_span_field_by_field(world: World, receiver: Receiver) -> None:
    await broken_setup(world)

    async def arrived() -> bool:
        return not await differences(world, receiver)

    await until(arrived, "the receiver has what the records say")
    names = {span["name"] for span in receiver.spans}
    assert {"cmd.allocation.request", "ssh.key-install", "recovery R02 remote user setup", "recovery.started",
            "reverse user-create", "rollback reservation", "recovery.ended"} <= names  # fmt: skip
    resources = {span["resource"]["service.name"] for span in receiver.spans}
    assert resources == {"amends"}
    assert receiver.headers["authorization"] == "Bearer a-receivers-token"


async def test_with_the_receiver_down_nothing_changes_and_a_kill_loses_no_span(
    world: World, receiver: Receiver
) -> None:
    # given a receiver that is gone
    await receiver.stop()
    allocation_id = await broken_setup(world)
    http = world.endpoints["http_url"]
    async with aiohttp.ClientSession() as session, session.get(f"{http}/readyz") as ready:
        assert ready.status == 200
    assert (await world.allocation(allocation_id))["failure_code"] == "ssh_step_failed"
    # when the runtime is killed, and the receiver comes back after its restart
    world.kill()
    await world.restart()
    await broken_setup(world)
    await receiver.start()

    async def arrived() -> bool:
        return not await differences(world, receiver)

    # then both runs are there, each span as it was recorded
    await until(arrived, "the backlog has drained", 30)
    recoveries = [span for span in receiver.spans if span["name"].startswith("recovery R02")]
    assert len({span["span_id"] for span in recoveries}) == 2


def command_line(pid: int) -> str:
    """Of a process; "" once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def exporting(world: World) -> list[int]:
    """The processes that send spans for the runtime."""
    assert world.process is not None
    pid = world.process.pid
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [child for child in children if "supervisors.boot.exporting" in command_line(child)]


async def test_the_process_that_sends_spans_may_die_and_dies_with_the_runtime(world: World, receiver: Receiver) -> None:
    # given one that has sent
    await broken_setup(world)

    async def arrived() -> bool:
        return bool(receiver.spans) and not await differences(world, receiver)

    await until(arrived, "the receiver has what the records say")
    (first,) = exporting(world)
    assert "a-receivers-token" not in command_line(first), "its orders are no arguments: they hold secrets"
    # when it is killed, the runtime goes on, and another one sends what comes
    os.kill(first, signal.SIGKILL)
    await broken_setup(world)
    await until(arrived, "another process has sent the rest")
    (second,) = exporting(world)
    assert second != first
    assert "the process that sends spans has ended (-9)" in world.log_text()
    # and one whose runtime is killed ends by itself
    world.kill()

    async def gone() -> bool:
        return not command_line(second)

    await until(gone, "nobody sends spans for a runtime that is gone")
    await world.restart()


async def test_the_jaeger_api_is_for_operators_and_shows_both_directions(world: World) -> None:
    allocation_id = await broken_setup(world)
    run = await world.one("SELECT * FROM public_v1.recovery_run WHERE entity = $1", f"allocation:{allocation_id}")
    http, token = world.endpoints["http_url"], world.endpoints["operator_token"]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{http}/api/traces?service=amends") as refused:
            assert refused.status == 401
        head = {"Authorization": f"Bearer {token}"}

        async def trace(trace_id: str) -> dict[str, Any]:
            async with session.get(f"{http}/api/traces/{trace_id}", headers=head) as found:
                assert found.status == 200
                return (await found.json())["data"][0]  # type: ignore[no-any-return]

        failed = await trace(run["original_trace_id"])
        recovery = await trace(run["recovery_trace_id"])
        async with session.get(f"{http}/api/services", headers=head) as services:
            assert (await services.json())["data"] == ["amends"]
    (started,) = [span for span in failed["spans"] if span["operationName"] == "recovery.started"]
    assert run["recovery_trace_id"] in json.dumps(started)
    (root,) = [span for span in recovery["spans"] if span["operationName"].startswith("recovery R02")]
    assert run["original_trace_id"] in json.dumps(root)


async def test_the_verifiers_of_the_command_line_agree(world: World) -> None:
    await broken_setup(world)
    for verb in ("trace", "audit"):
        assert "valid" in await world.amends(verb, "verify", "--state-dir", str(world.state_dir))


FAILED = "operation=ssh.key-install"
VIEWERS: dict[str, Callable[[Any], Any]] = {
    "/api/services": lambda body: body["data"] == ["amends"],
    "/api/services/amends/operations": lambda body: "ssh.key-install" in body["data"],
    "/api/operations?service=amends&spanKind=client": lambda body: (
        {"name": "ssh.probe", "spanKind": "client"} in body["data"]
    ),
    "/api/dependencies?endTs=1768478400000&lookback=604800000": lambda body: body["data"] == [],
    "/api/traces?service=amends&lookback=1h&limit=20&minDuration=1us": lambda body: len(body["data"]) > 1,
    # of that step, since a slow machine may have failed a probe as well
    f'/api/traces?service=amends&{FAILED}&tags={{"error":"true","amends.attempt":"1"}}': lambda body: (
        len(body["data"]) == 1
    ),
    f"/api/traces?service=amends&{FAILED}&tag=span.kind:client&tag=error:true": lambda body: len(body["data"]) == 1,
    "/api/traces?service=nobody": lambda body: body["data"] == [],
    "/api/v3/services": lambda body: body == {"services": ["amends"]},
    "/api/v3/operations?service=amends": lambda body: {"name": "ssh.probe", "spanKind": "client"} in body["operations"],
    "/api/v3/traces?query.serviceName=amends": lambda body: body["result"]["resourceSpans"],
    '/api/v3/trace-summaries?query.serviceName=amends&query.attributes={"error":"true"}': lambda body: (
        {one["errorSpanCount"] > 0 for one in body["summaries"]} == {True}
    ),
}


async def test_both_of_jaeger_s_interfaces_get_what_they_ask_for(world: World) -> None:
    await broken_setup(world)
    http = world.endpoints["http_url"]
    head = {"Authorization": f"Bearer {world.endpoints['operator_token']}"}
    async with aiohttp.ClientSession() as session:
        for path, good in VIEWERS.items():
            async with session.get(f"{http}{path}") as refused:
                assert (refused.status, (await refused.json())["errors"][0]["code"]) == (401, 401), path
            async with session.get(f"{http}{path}", headers=head) as answer:
                body = await answer.json()
            assert answer.status == 200, body
            assert good(body), (path, body)
        async with session.get(f"{http}/api/traces?service=amends&colour=red", headers=head) as answer:
            assert (answer.status, (await answer.json())["data"]) == (400, None)


async def test_what_arrives_has_its_children_within_it_and_all_it_points_at(world: World, receiver: Receiver) -> None:
    await broken_setup(world)

    async def arrived() -> bool:
        return not await differences(world, receiver)

    await until(arrived, "the receiver has what the records say")
    compensations = await world.rows("SELECT * FROM public_v1.compensation")
    assert all(row["duration_ms"] is not None for row in compensations)
    assert verify(compensations, receiver.spans, elsewhere=()) == []
    steps = [span["attributes"] for span in receiver.spans if span["name"].startswith("ssh.")]
    assert {(step["rpc.system.name"], step["server.address"]) for step in steps} == {("ssh", "127.0.0.1")}
    assert all(step["server.port"] > 0 for step in steps)
