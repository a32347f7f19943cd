"""The permissions that docs/security.md gives, on a real server: each speaks for itself and for nobody else."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.embedded.nats import EmbeddedNats
from adapters.nats.agent import NodeAgent
from adapters.nats.answers import Answers
from adapters.nats.permissions import configuration
from amends.values.inboxes import inbox_prefix
from tests.directories import scratch
from tests.patience import PATIENCE_S

PAGE = Path(__file__).parents[3] / "docs" / "security.md"
USERS = ("runtime", "node-n1", "provider-p1", "front", "front-2", "operator", "streams")
WATCH = '    { user: watch, password: "watch" }\n'  # sees everything; no user of the page


def test_the_page_shows_what_the_code_makes() -> None:
    variables = {name: f"${name.upper().replace('-', '_')}_PASSWORD" for name in USERS}
    assert f"```\n{configuration(variables)}```" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["node", "front-", "front 1", "node-", "somebody", "runtime-1", ""])
def test_a_name_that_is_no_user_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no user"):
        configuration({name: "x"})


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedNats]:
    base = scratch("amends-nats-")
    users = configuration({name: name for name in USERS}).replace("  ]\n", f"{WATCH}  ]\n")
    server = EmbeddedNats(base, config_extra=users)
    await server.start()
    yield server
    await server.stop()
    shutil.rmtree(base)


async def as_user(server: EmbeddedNats, user: str) -> tuple[Client, list[str]]:
    refused: list[str] = []

    async def on_error(error: Exception) -> None:
        refused.append(str(error).lower())

    prefix = inbox_prefix(user).encode()
    return await nats.connect(server.url, user=user, password=user, error_cb=on_error, inbox_prefix=prefix), refused


async def test_an_agent_needs_no_more_than_its_own_subjects(server: EmbeddedNats, tmp_path: Path) -> None:
    runtime, _ = await as_user(server, "runtime")
    beats = await runtime.subscribe("amends.v1.hb.*")
    results = await runtime.subscribe("amends.v1.result.*")
    await runtime.flush()
    agent = NodeAgent("n1", [server.url], tmp_path, interval_ms=20, user="node-n1", password="node-n1", users=list)
    await agent.start()
    assert (await beats.next_msg(timeout=PATIENCE_S)).subject == "amends.v1.hb.n1"
    task = b'{"task_id": "task_1", "op": "reconcile", "node_epoch": 1, "runtime_epoch": 1}'
    await runtime.publish("amends.v1.task.n1", task)
    assert b'"status":"ok"' in (await results.next_msg(timeout=PATIENCE_S)).data
    await agent.stop()
    await runtime.close()


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("node-n1", "amends.v1.hb.n2"),
        ("node-n1", "amends.v1.result.n2"),
        ("node-n1", "amends.v1.task.n1"),
        ("node-n1", "amends.v1.cmd.allocation.release"),
        ("front", "amends.v1.ops.node.drain"),
        ("front", "amends.v1.hb.n1"),
        ("operator", "amends.v1.task.n1"),
        ("provider-p1", "amends.v1.cmd.allocation.release"),
        ("provider-p1", "_INBOX.somebody.1"),
        ("runtime", "amends.v1.hb.n1"),
        ("runtime", "amends.v1.cmd.allocation.release"),
        ("runtime", "amends.v1.ops.node.drain"),
        ("runtime", "$JS.API.STREAM.PURGE.AMENDS_EVT"),
        ("runtime", "$JS.API.STREAM.DELETE.AMENDS_NTF"),
        ("runtime", "orders.created"),
        ("streams", "amends.v1.evt.node.n1.ready"),
    ],
)
async def test_nobody_speaks_for_another(server: EmbeddedNats, user: str, subject: str) -> None:
    watch, _ = await as_user(server, "watch")
    heard = [await watch.subscribe(each) for each in ("amends.>", "$JS.>", "_INBOX.somebody.>")]
    await watch.flush()
    client, refused = await as_user(server, user)
    await client.publish(subject, b"{}")
    await client.flush()
    await asyncio.sleep(0.05)
    assert [each.pending_msgs for each in heard] == [0, 0, 0]
    assert any("permissions violation" in one for one in refused)
    await client.close()
    await watch.close()


async def test_a_node_does_not_hear_anothers_tasks(server: EmbeddedNats) -> None:
    client, refused = await as_user(server, "node-n1")
    await client.subscribe("amends.v1.task.*")
    await client.flush()
    await asyncio.sleep(0.05)
    assert any("permissions violation" in one for one in refused)
    await client.close()


@pytest.mark.parametrize("other", ["_INBOX.>", "_INBOX_operator.>", "_INBOX_front-2.>", ">", "*.*"])
async def test_a_front_end_hears_nobody_elses_answers(server: EmbeddedNats, other: str) -> None:
    runtime, _ = await as_user(server, "runtime")

    async def answer(message: Msg) -> None:
        assert Answers().may_go_to(message.reply)
        await message.respond(b"the operators' token, say")

    await runtime.subscribe("amends.v1.ops.>", cb=answer)
    await runtime.subscribe("amends.v1.cmd.>", cb=answer)
    await runtime.flush()
    front, refused = await as_user(server, "front")
    overheard = await front.subscribe(other)
    await front.flush()
    await asyncio.sleep(0.05)
    assert any("permissions violation" in one for one in refused)
    operator, _ = await as_user(server, "operator")
    second, _ = await as_user(server, "front-2")
    assert (await operator.request("amends.v1.ops.tree.show", b"{}", timeout=PATIENCE_S)).data
    assert (await second.request("amends.v1.cmd.account.create", b"{}", timeout=PATIENCE_S)).data
    await front.flush()
    assert overheard.pending_msgs == 0
    # and its own come, under the product's own defaults
    assert (await front.request("amends.v1.cmd.account.create", b"{}", timeout=PATIENCE_S)).data
    for client in (front, second, operator, runtime):
        await client.close()


async def test_a_provider_answers_and_says_nothing_by_itself(server: EmbeddedNats) -> None:
    runtime, _ = await as_user(server, "runtime")
    provider, _ = await as_user(server, "provider-p1")

    async def answer(message: Msg) -> None:
        await message.respond(b"ok")

    await provider.subscribe("amends.v1.provider.p1.usage", cb=answer)
    await provider.flush()
    assert (await runtime.request("amends.v1.provider.p1.usage", b"{}", timeout=PATIENCE_S)).data == b"ok"
    await provider.close()
    await runtime.close()
