"""The client against a node that misbehaves: the outcome of each failure, and the life of connections."""

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import asyncssh
import msgspec
import pytest
from asyncssh.constants import OPEN_CONNECT_FAILED, OPEN_RESOURCE_SHORTAGE

from adapters.embedded.ports import free_port
from adapters.simulated.ssh_node import Fault, SimulatedNode
from adapters.ssh import connections
from adapters.ssh.client import SshClient
from adapters.ssh.client_key import generate_client_key
from adapters.ssh.commands import SshCommand, SshEndpoint, SshOutcome, probe_command
from adapters.ssh.keys import KeyRefused
from adapters.ssh.session import plain
from tests.adapters.ssh.machines import Customer, Simulated, until
from tests.patience import PATIENCE_S


@pytest.fixture
def customer(simulated: Simulated) -> Customer:
    return Customer(simulated)


@pytest.fixture
async def client() -> AsyncIterator[SshClient]:
    made = SshClient(asyncssh.generate_private_key("ssh-ed25519"), idle_ms=60_000, max_idle_connections=2)
    yield made
    await made.close()


@pytest.fixture
async def node() -> AsyncIterator[SimulatedNode]:
    made = SimulatedNode(port=free_port())
    await made.start()
    yield made
    await made.stop()


def endpoint(node: SimulatedNode) -> SshEndpoint:
    return SshEndpoint(node.address, node.port, "root", node.host_key)


async def step(client: SshClient, node: SimulatedNode, *, timeout_ms: int = 20_000) -> SshOutcome:
    """A command that may go over a connection that waits; a probe may not."""
    lock = SshCommand("user-lock", "am-" + "1" * 26, "alloc_" + "1" * 26, "task_" + "1" * 26, 1)
    return await client.run("n1", endpoint(node), lock, timeout_ms=timeout_ms)


async def probe(client: SshClient, node: SimulatedNode, *, name: str = "n1", timeout_ms: int = 20_000) -> SshOutcome:
    return await client.run(name, endpoint(node), probe_command(1), timeout_ms=timeout_ms)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("exit", exit_status=1), ("failed", "ssh_step_failed", 1)),
        (Fault("exit", exit_status=255), ("failed", "ssh_step_failed", 255)),
        (Fault("exit", exit_status=74), ("failed", "ssh_retryable", 74)),
        (Fault("exit", exit_status=75), ("failed", "ssh_stale_epoch", 75)),
        (Fault("drop_before"), ("unknown", "ssh_step_failed", None)),
        (Fault("drop_after"), ("unknown", "ssh_step_failed", None)),
        (Fault("no_exit_status"), ("unknown", "ssh_step_failed", None)),
        (Fault("hang"), ("unknown", "ssh_timeout", None)),
        (Fault("delay", seconds=600), ("unknown", "ssh_timeout", None)),
        (Fault("exit", exit_status=0), ("unknown", "ssh_not_run", 0)),
        (Fault("not_run"), ("unknown", "ssh_not_run", 0)),
        (Fault("no_line"), ("unknown", "ssh_not_run", 0)),
        (Fault("no_line", text="amends-done key-install 0123456789abcdef\n"), ("unknown", "ssh_not_run", 0)),
        (Fault("stderr", exit_status=0, text="all is well"), ("unknown", "ssh_not_run", 0)),
        (Fault("noise", text="no end of this line: "), ("unknown", "ssh_not_run", 0)),
        (Fault("noise", text="Welcome!\n" * 100_000 + "\n"), ("done", "", 0)),
        (Fault("delay", seconds=0.01), ("done", "", 0)),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
async def test_each_failure_inside_a_step_has_its_outcome_and_the_next_step_is_well(
    customer: Customer, fault: Fault, expected: tuple[object, ...]
) -> None:
    machine = customer.machine
    assert isinstance(machine, Simulated)
    assert await customer.exits("user-create") == 0
    machine.node.inject("key-install", fault)
    # The deadline is short only where it is what ends the step; the connection is open already.
    outcome = await customer.step("key-install", timeout_ms=1000 if expected[1] == "ssh_timeout" else 20_000)
    assert (outcome.status, outcome.code, outcome.exit_status) == expected
    assert outcome.may_have_run
    assert [call.op for call in machine.node.calls].count("key-install") <= 1  # an unknown step is never sent again
    assert await customer.exits("key-install") == 0
    assert machine.node.calls[-1].exit == 0


async def test_a_dropped_step_was_applied_or_not_as_the_fault_says(customer: Customer) -> None:
    machine = customer.machine
    assert isinstance(machine, Simulated)
    machine.node.inject("user-create", Fault("drop_before"))
    await customer.step("user-create")
    assert not customer.exists
    machine.node.inject("user-create", Fault("drop_after"))
    await customer.step("user-create")
    assert customer.exists
    assert [call.exit for call in machine.node.calls] == [None, None]


async def test_what_a_node_says_is_shown_without_anything_that_acts(customer: Customer) -> None:
    machine = customer.machine
    assert isinstance(machine, Simulated)
    hostile = "first line\n\x1b]0;title\x07\x1b[2Jlast\u202e \u2028\x85li\0ne\r\n \t\n"
    machine.node.inject("user-create", Fault("stderr", exit_status=1, text=hostile))
    assert (await customer.step("user-create")).message == "first line; ]0;title[2Jlast line"
    machine.node.inject("user-create", Fault("stderr", exit_status=1, text="x" * 200_000 + "END \udcff"))
    outcome = await customer.step("user-create")
    assert outcome.message == "x" * 795 + "END \ufffd"
    machine.node.inject("user-create", Fault("stderr", exit_status=1, text="y" * 200_000 + "\nthe end \udcff\udcfe"))
    assert (await customer.step("user-create")).message == "y" * 788 + "; the end \ufffd\ufffd"
    machine.node.inject("user-create", Fault("stderr", exit_status=3, text=""))
    assert (await customer.step("user-create")).message == "exit status 3"


def test_plain_text_holds_no_control_character() -> None:
    assert plain("".join(map(chr, range(0x20))) + "\x7f\x9b\u200f\ufeff\U000e0001 é 漢") == "é 漢"


async def test_a_login_refused_for_a_time_is_refused_and_then_not(client: SshClient, node: SimulatedNode) -> None:
    node.refuse_auth = True
    outcome = await probe(client, node)
    assert (outcome.status, outcome.code, outcome.may_have_run) == ("failed", "ssh_auth_failed", False)
    node.refuse_auth = False
    assert (await probe(client, node)).status == "done"


async def test_a_connection_is_used_again(client: SshClient, node: SimulatedNode) -> None:
    for _ in range(3):
        assert (await step(client, node)).status == "done"
        assert client.idle_connections == 1
        assert len(node._connections) == 1


async def test_a_probe_asks_who_listens_now_and_not_a_connection_that_outlives_its_listener(
    client: SshClient, node: SimulatedNode
) -> None:
    assert (await step(client, node)).status == "done"
    assert node._listener is not None
    node._listener.close()
    assert (await step(client, node)).status == "done", "the connection stands"
    outcome = await probe(client, node)
    assert (outcome.status, outcome.code, outcome.may_have_run) == ("failed", "ssh_connect_failed", False)


async def test_a_connection_that_idles_is_closed(node: SimulatedNode) -> None:
    client = SshClient(asyncssh.generate_private_key("ssh-ed25519"), idle_ms=1)
    assert (await probe(client, node)).status == "done"
    await until(lambda: not client.idle_connections, "nothing waits for use")
    await until(lambda: not node._connections, "the node has no connection")
    await client.close()


async def test_a_failed_step_is_no_error_of_its_connection_but_a_lost_one_is(
    client: SshClient, node: SimulatedNode
) -> None:
    node.inject("user-lock", Fault("exit"))
    await step(client, node)
    assert client.idle_connections == 1
    for fault, code, timeout_ms in (
        (Fault("no_exit_status"), "ssh_step_failed", 20_000),
        (Fault("drop_after"), "ssh_step_failed", 20_000),
        (Fault("hang"), "ssh_timeout", 1000),
    ):
        assert (await step(client, node)).status == "done"
        assert client.idle_connections == 1
        node.inject("user-lock", fault)
        outcome = await step(client, node, timeout_ms=timeout_ms)
        assert (outcome.status, outcome.code, outcome.may_have_run) == ("unknown", code, True)
        assert client.idle_connections == 0


async def test_a_node_that_was_restarted_is_reached_at_once_again(client: SshClient, node: SimulatedNode) -> None:
    await step(client, node)
    await node.stop()
    outcome = await step(client, node)
    assert (outcome.status, outcome.code, outcome.may_have_run) == ("failed", "ssh_connect_failed", False)
    await node.start()
    assert (await step(client, node)).status == "done"


async def test_a_waiting_connection_that_opens_no_channel_is_replaced_once(
    client: SshClient, node: SimulatedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    await step(client, node)
    opened = 0
    genuine = asyncssh.SSHClientConnection.create_session

    async def refuse_first(self, *args, **keywords):  # type: ignore[no-untyped-def]
        nonlocal opened
        opened += 1
        if opened == 1:
            raise asyncssh.ChannelOpenError(OPEN_CONNECT_FAILED, "the connection is dead")
        return await genuine(self, *args, **keywords)

    monkeypatch.setattr(asyncssh.SSHClientConnection, "create_session", refuse_first)
    assert (await step(client, node)).status == "done"
    assert (opened, len(node.calls)) == (2, 2)


async def test_a_waiting_connection_whose_node_no_longer_answers_is_replaced_once(node: SimulatedNode) -> None:
    # given a waiting connection, open as far as anybody can tell, behind which nobody reads any more
    client = SshClient(asyncssh.generate_private_key("ssh-ed25519"), connect_timeout_ms=1000, idle_ms=60_000)
    await step(client, node)
    (deaf,) = node._connections
    assert isinstance(deaf._transport, asyncio.ReadTransport)
    deaf._transport.pause_reading()
    # then the next step does not wait for it until its own deadline
    outcome = await step(client, node, timeout_ms=600_000)
    assert (outcome.status, outcome.duration_us < 10_000_000) == ("done", True)  # keep-alives need 15 s
    assert len(node.calls) == 2
    await client.close()


async def test_a_fresh_connection_that_opens_no_channel_is_not_tried_again(
    client: SshClient, node: SimulatedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = 0

    async def refuse(self, *args, **keywords):  # type: ignore[no-untyped-def]
        nonlocal opened
        opened += 1
        raise asyncssh.ChannelOpenError(OPEN_RESOURCE_SHORTAGE, "no")

    monkeypatch.setattr(asyncssh.SSHClientConnection, "create_session", refuse)
    outcome = await probe(client, node)
    assert (outcome.status, outcome.code, outcome.may_have_run) == ("failed", "ssh_connect_failed", False)
    assert opened == 1


async def test_a_node_at_another_address_or_with_another_key_is_connected_anew(
    client: SshClient, node: SimulatedNode
) -> None:
    await probe(client, node)
    old = endpoint(node)
    await node.change_host_key("ecdsa-sha2-nistp256")
    outcome = await client.run("n1", old, probe_command(1), timeout_ms=5000)
    assert (outcome.code, outcome.may_have_run) == ("ssh_host_key_mismatch", False)
    assert (await probe(client, node)).status == "done"
    pinned_elsewhere = msgspec.structs.replace(endpoint(node), host_key=old.host_key)
    outcome = await client.run("n1", pinned_elsewhere, probe_command(1), timeout_ms=5000)
    assert outcome.code == "ssh_host_key_mismatch"  # the live connection to the same place does not stand in


async def test_the_number_of_waiting_connections_is_bounded(client: SshClient, node: SimulatedNode) -> None:
    for name in ("n1", "n2", "n3"):
        await probe(client, node, name=name)
    assert client.idle_connections == 2
    await until(lambda: len(node._connections) == 2, "the third is closed")


@pytest.mark.parametrize(("spoken_within_s", "waits"), [(60.0, True), (0.05, False)])
async def test_so_many_connections_are_opened_at_once_and_a_node_that_does_not_speak_is_not_waited_for(
    node: SimulatedNode, monkeypatch: pytest.MonkeyPatch, spoken_within_s: float, waits: bool
) -> None:
    monkeypatch.setattr(connections, "_AT_ONCE", 2)
    monkeypatch.setattr(connections, "_SPOKEN_WITHIN_S", spoken_within_s)
    client = SshClient(asyncssh.generate_private_key("ssh-ed25519"), connect_timeout_ms=2000)
    silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    hanging = [
        asyncio.create_task(
            client.run(
                f"h{number}", SshEndpoint("127.0.0.1", server.getsockname()[1], "root", node.host_key),
                probe_command(1), timeout_ms=20_000,
            )
        )
        for number, server in enumerate(silent)
    ]  # fmt: skip
    await asyncio.sleep(0.01)
    # when two of two places are taken by nodes that accept and say nothing
    outcome = await probe(client, node)
    # then the third waits until they have been given up, unless they have had their time to speak
    assert outcome.status == "done"
    assert (all(task.done() for task in hanging), any(task.done() for task in hanging)) == (waits, waits)
    assert {outcome.code for outcome in await asyncio.gather(*hanging)} == {"ssh_connect_failed"}
    await client.close()
    for server in silent:
        server.close()


async def test_a_peer_that_accepts_and_says_nothing_is_given_up_in_time() -> None:
    gone = 0

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal gone
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        gone += 1

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    key = asyncssh.generate_private_key("ssh-ed25519")
    host_key = key.export_public_key().decode().strip()
    silent = SshEndpoint("127.0.0.1", server.sockets[0].getsockname()[1], "root", host_key)
    client = SshClient(key, connect_timeout_ms=200)
    outcome = await client.run("n1", silent, probe_command(1), timeout_ms=600_000)
    assert (outcome.status, outcome.code, outcome.may_have_run) == ("failed", "ssh_connect_failed", False)
    assert 150_000 < outcome.duration_us < 60_000_000
    await client.close()
    patient = SshClient(key, connect_timeout_ms=600_000)
    outcome = await patient.run("n1", silent, probe_command(1), timeout_ms=200)
    assert (outcome.status, outcome.code, outcome.may_have_run) == ("failed", "ssh_timeout", False)
    await patient.close()
    await until(lambda: gone == 2, "both connections are closed")
    server.close()
    async with asyncio.timeout(PATIENCE_S):
        await server.wait_closed()


async def test_cancelling_a_step_drops_its_connection(client: SshClient, node: SimulatedNode) -> None:
    node.inject("probe", Fault("hang"))
    step = asyncio.create_task(probe(client, node))
    await until(lambda: node.calls, "the node has the command")
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    await until(lambda: not node._connections, "the node has no connection")
    assert client.idle_connections == 0


async def test_closing_ends_what_runs_as_unknown_and_refuses_what_comes_later(
    client: SshClient, node: SimulatedNode
) -> None:
    node.inject("probe", Fault("hang"))
    step = asyncio.create_task(probe(client, node))
    await until(lambda: node.calls, "the node has the command")
    await client.close()
    outcome = await step
    assert (outcome.status, outcome.code, outcome.may_have_run) == ("unknown", "ssh_step_failed", True)
    outcome = await probe(client, node)
    assert (outcome.code, outcome.may_have_run) == ("ssh_connect_failed", False)


async def test_the_customers_options_are_written_before_the_key_and_nothing_of_its_comment(
    customer: Customer,
) -> None:
    machine = customer.machine
    assert isinstance(machine, Simulated)
    await customer.exits("user-create")
    await customer.exits("key-install")
    kind, blob = customer.public.split(" ")[:2]
    assert machine.node.table.users[customer.user].key_line == f"restrict,pty,port-forwarding {kind} {blob}"
    customer.public = f"{customer.public}\n{customer.public}"
    with pytest.raises(KeyRefused):
        await customer.step("key-install")
    with pytest.raises(ValueError, match="customer_key_options"):
        SshClient(customer.key, customer_key_options="restrict\n")


async def test_what_is_no_step_is_refused_by_the_simulated_node(node: SimulatedNode) -> None:
    pinned = asyncssh.import_public_key(node.host_key)
    async with asyncssh.connect(
        node.address,
        node.port,
        username="root",
        known_hosts=([pinned], [], []),
        client_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        config=None,
        agent_path=None,
    ) as connection:
        for command in ("id", "env AMENDS_OP=probe sh -s", "env AMENDS_OP=probe AMENDS_USER=- sh -s; id"):
            assert (await connection.run(command, stdin=asyncssh.DEVNULL)).exit_status == 127
    assert node.calls == []


async def test_a_simulated_node_keeps_its_users_over_a_restart_of_the_process(tmp_path: Path) -> None:
    client = SshClient(asyncssh.generate_private_key("ssh-ed25519"))
    node = SimulatedNode(file=tmp_path / "node.json")
    await node.start()
    customer = Customer(Simulated(node, client))
    await customer.exits("user-create", epoch=3)
    await node.stop()
    again = SimulatedNode(file=tmp_path / "node.json")
    await again.start()
    customer.machine = Simulated(again, client)
    assert customer.exists
    assert await customer.exits("key-install", epoch=2) == 75
    await customer.machine.close()


async def test_fifty_nodes_live_in_one_process() -> None:
    client = SshClient(asyncssh.generate_private_key("ssh-ed25519"))
    nodes = [SimulatedNode() for _ in range(50)]
    for node in nodes:
        await node.start()
    outcomes = await asyncio.gather(*(probe(client, node, name=f"n{i}") for i, node in enumerate(nodes)))
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert client.idle_connections == 50
    await client.close()
    for node in nodes:
        await node.stop()


def test_the_clients_key_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "client_key"
    line = generate_client_key(path)
    assert line.startswith("ssh-ed25519 ")
    assert "\n" not in line
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert generate_client_key(path) == line
    assert [entry.name for entry in tmp_path.iterdir()] == ["client_key"]
    SshClient(path)
