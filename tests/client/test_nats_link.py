"""The real link on a real nats-server with the documented permissions: what may be read, what not, and what is lost."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing

import nats
import pytest

from adapters.embedded.nats import EmbeddedNats
from adapters.nats.permissions import configuration
from amends_client import NoEvents, Refused, Unreachable, connect
from amends_client.nats_link import cancellable, inbox_prefix_of, linked
from tests.directories import scratch
from tests.patience import PATIENCE_S

SUBJECT = "amends.v1.evt.allocation.alloc_1"
OTHERS = "amends.v1.evt.allocation.alloc_2"
USERS = {"streams": "s", "front": "f", "runtime": "r"}


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedNats]:
    base = scratch("amends-client-")
    server = EmbeddedNats(base, config_extra=configuration(USERS))
    await server.start()
    yield server
    await server.stop()
    shutil.rmtree(base)


def url(server: EmbeddedNats, user: str) -> str:
    return server.url.replace("nats://", f"nats://{user}:{USERS[user]}@")


async def publish(server: EmbeddedNats, *subjects: str) -> None:
    """Events of the stream, which is made first if it is not there, in the runtime's name."""
    client = await nats.connect(url(server, "runtime"), inbox_prefix="_INBOX_runtime")
    stream = client.jetstream()
    await stream.add_stream(name="AMENDS_EVT", subjects=["amends.v1.evt.>"])
    for number, subject in enumerate(subjects, 1):
        await stream.publish(subject, json.dumps(number).encode())
    await client.close()


async def told(server: EmbeddedNats, count: int, *, latest: bool = False, user: str = "streams") -> list[int]:
    """The first messages that are told."""
    found: list[int] = []
    async with (
        linked([url(server, user)], "", PATIENCE_S, {}) as link,
        asyncio.timeout(PATIENCE_S),
        aclosing(link.follow(f"{SUBJECT}.>", latest=latest)) as messages,
    ):
        async for message in messages:
            found.append(int(message))
            if len(found) == count:
                break
    return found


async def test_events_of_one_entity_are_told_in_order_or_only_the_last_of_each_name(server: EmbeddedNats) -> None:
    one, two = f"{SUBJECT}.ready", f"{SUBJECT}.suspect"
    await publish(server, one, f"{OTHERS}.ready", two, one, two, one)
    assert await told(server, 5) == [1, 3, 4, 5, 6]
    assert await told(server, 2, latest=True) == [5, 6]


async def test_a_server_that_restarts_and_forgets_the_consumer_loses_no_event(server: EmbeddedNats) -> None:
    await publish(server, f"{SUBJECT}.one", f"{SUBJECT}.two")
    found: list[int] = []
    async with (
        linked([url(server, "streams")], "", PATIENCE_S, {}) as link,
        asyncio.timeout(PATIENCE_S),
        aclosing(link.follow(f"{SUBJECT}.>")) as messages,
    ):
        async for message in messages:
            found.append(int(message))
            if len(found) == 1:
                await server.stop()
                await server.start()
                await publish(server, f"{OTHERS}.x", f"{OTHERS}.x", f"{SUBJECT}.three")
            if len(found) == 3:
                break
    assert found == [1, 2, 3]


async def test_who_may_not_read_events_or_ask_is_told_so(server: EmbeddedNats) -> None:
    await publish(server)
    with pytest.raises(NoEvents, match=r"does not let this user publish \$js\.api\.consumer"):
        await told(server, 1, user="front")
    async with connect(url(server, "front")) as client:
        with pytest.raises(Refused, match="NATS does not let this user publish amends"):
            await client.ops.tree.show(deadline_s=1)
        with pytest.raises(Unreachable, match="no runtime answers"):
            await client.node.get("n1", deadline_s=0.2)
        with pytest.raises(Refused, match="more than NATS takes"):
            await client.forward_webhook(b"x" * 2_000_000, "")


async def test_where_there_is_no_stream_or_no_server_it_says_so(server: EmbeddedNats) -> None:
    with pytest.raises(NoEvents, match="there is no stream AMENDS_EVT"):
        await told(server, 1)
    await server.stop()
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1 cannot be reached"):
        async with connect(url(server, "front"), deadline_s=0.5):
            pass


def test_answers_go_where_the_user_may_hear_them() -> None:
    assert inbox_prefix_of(["nats://front-2:x@h:4222"], "") == "_INBOX_front-2"
    assert inbox_prefix_of(["nats://h:4222"], "front") == "_INBOX_front"
    assert inbox_prefix_of(["nats://a.b@h:4222"], "") == inbox_prefix_of(["nats://h:4222"], "") == "_INBOX"


async def test_a_cancellation_that_the_work_swallows_ends_the_wait_all_the_same() -> None:
    began = asyncio.Event()

    async def swallows() -> str:
        began.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "an answer"

    waiting = asyncio.create_task(cancellable(swallows()))
    await began.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
