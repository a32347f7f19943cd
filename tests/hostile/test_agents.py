"""What agents and providers send, and what they are sent: read or left out, whatever it is, and the link goes on."""

import asyncio
import json
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from adapters.nats.agent_messages import MOUNT_OPS, MountTask, Task, TaskResult
from adapters.nats.agent_outcomes import outcome
from adapters.nats.agents import AgentTasks, Heartbeats
from adapters.nats.beats import Beat, BeatParser, taken_out
from adapters.nats.provider_words import NEEDED, read_reply, read_request
from adapters.nats.providers import _outcome
from adapters.nats.publishing import traceparent
from amends.ports.steps import Outcome
from amends.runtime.identity import Identity, trace_of
from amends.values.canonical import UNREADABLE
from tests.adapters.nats.driver import Driver
from tests.hostile.values import changed, given, sent, tried, words

LOOP: Final = asyncio.Runner()
BEAT: Final = {"boot_id": "b-1", "seq": 1, "sent_us": 1, "health": {"load": 1}, "version": "0.4", "proto": 2}
RESULT: Final = {
    "task_id": "task_1", "status": "ok", "code": "a", "message": "m", "holders": ["a", 1],
    "observed": {"mounted": True, "mode": "rw"}, "inventory": {"mounts": ["a"], "users": ["b"], "foreign": ["/c"]},
}  # fmt: skip
TASK: Final = {
    "task_id": "task_1", "op": "mount", "node_epoch": 1, "runtime_epoch": 1, "ttl_ms": 1000, "proto": 2,
    "expected": {"mounts": ["a"], "users": ["b"]}, "report_only": False, "attachment_id": "a", "attempt_id": "b",
    "namespace_id": "n", "mode": "rw", "mount_path": "/mnt/x", "source": {"type": "bind", "path": "/srv"},
}  # fmt: skip
REPLY: Final = {
    "status": "ok", "retryable": False, "code": "a", "message": "m", "observed": {"granted": True, "mode": "rw"},
    "source": {"type": "nfs", "server": "s1", "export": "/srv", "options": "soft"}, "modes": ["ro", "rw"],
    "multi_attach": True, "mount_path_prefixes": ["/mnt"], "enforcement": "quota", "used_bytes": 1, "as_of_us": 1,
    "enforced": True, "grants": [{"grant_id": "g", "node_id": "n1", "mode": "ro"}],
}  # fmt: skip
ASKED: Final = {
    "runtime_epoch": 1, "grant_id": "g", "namespace_id": "n", "node_id": "n1", "node_address": "10.0.0.1", "mode": "rw",
}  # fmt: skip
names = st.sampled_from((b"n1", b"*", b">", b"\xff", b"a" * 300)) | st.binary(min_size=1, max_size=8)
beats = st.tuples(names, sent(changed(BEAT)))
OPS: Final = (*MOUNT_OPS, "reconcile", "inventory", "colour")


@given(st.lists(beats, max_size=4))
def test_of_heartbeats_some_are_heard_and_the_others_counted(found: list[Beat]) -> None:
    heard: list[tuple[str, str]] = []
    heartbeats = Heartbeats(heard.extend)
    heartbeats.take(found)
    assert (heartbeats.received, heartbeats.malformed) == (len(found), len(found) - len(heard))
    for node, boot_id in heard:
        assert node.encode(errors="replace").decode() == node
        assert 1 <= len(boot_id) <= 128
        assert boot_id.isascii()
        assert boot_id.isprintable()


payloads = st.binary(max_size=30) | st.sampled_from((b"", b"\r\n", b"PING\r\n", b"MSG amends.v1.hb.n9 1 3\r\nabc\r\n"))
ours = st.tuples(st.sampled_from((b"n1", b"n2")), payloads)
lines = st.tuples(st.just("hb"), ours) | st.tuples(st.just("other"), ours) | st.just(("ping", (b"", b"")))


def line(kind: str, node: bytes, data: bytes) -> bytes:
    if kind == "ping":
        return b"PING\r\n"
    return b"MSG amends.v1.%s.%s 1 %d\r\n%s\r\n" % (kind.encode(), node, len(data), data)


@given(st.lists(lines, max_size=8), st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_however_the_wire_is_cut_each_gets_its_own(said: list[tuple[str, Beat]], sizes: list[int]) -> None:
    wire, driver, found = b"".join(line(kind, *each) for kind, each in said), Driver(), list[Beat]()
    parser, at, turn = BeatParser(driver, found.extend), 0, 0
    while at < len(wire):
        size = sizes[turn % len(sizes)]
        LOOP.run(parser.parse(wire[at : at + size]))
        at, turn = at + size, turn + 1
    assert found == [each for kind, each in said if kind == "hb"]
    assert driver.messages == [(b"amends.v1.other." + node, data) for kind, (node, data) in said if kind == "other"]
    assert driver.pings == sum(kind == "ping" for kind, _ in said)


@given(st.binary(max_size=60), st.booleans())
def test_of_no_bytes_more_is_taken_than_there_is(data: bytes, begun: bool) -> None:
    data = b"MSG amends.v1.hb." * begun + data
    found, end = taken_out(data)
    assert 0 <= end <= len(data)
    assert sum(len(node) + len(said) for node, said in found) <= end


# --- results ---------------------------------------------------------------------------------------------


def checked(found: Outcome) -> None:
    assert found.kind in ("done", "failed")
    assert found.message.isprintable()
    assert len(found.message) <= 1000
    assert found.code.isascii()
    assert len(json.dumps(found.data)) < 2**20


@given(sent(changed(RESULT)), st.sampled_from(OPS), st.booleans())
def test_a_result_answers_its_task_or_nobody_s(data: bytes, op: str, late: bool) -> None:
    async def heard() -> list[tuple[str, str, Outcome]]:
        client: Any = None
        told: list[tuple[str, str, Outcome]] = []
        tasks = AgentTasks(client, 1, lambda: 1, lambda node: 1, late=lambda *one: told.append(one))
        future: asyncio.Future[TaskResult] = asyncio.get_running_loop().create_future()
        if not late:
            tasks._waiting["n1"] = {"task_1": future}
        message: Any = SimpleNamespace(subject="amends.v1.result.n1", data=data)
        await tasks._on_result(message)
        if future.done():
            assert future.result().task_id == "task_1"
            checked(outcome(op, future.result(), "rw"))
        assert future.done() + len(told) + tasks.unasked == 1
        return told

    for node, _, found in LOOP.run(heard()):
        assert node == "n1"
        checked(found)


@given(sent(changed(TASK)))
def test_a_task_is_read_or_refused_by_its_field(data: bytes) -> None:
    for of in (Task, MountTask):
        found, error = tried(UNREADABLE, partial(msgspec.json.decode, type=of), data)
        if isinstance(error, msgspec.ValidationError):
            assert "`" in str(error) or "out of range" in str(error)
        if error is None:
            assert msgspec.json.decode(msgspec.json.encode(found), type=of) == found


# --- providers -------------------------------------------------------------------------------------------


@given(sent(changed(REPLY)), st.sampled_from((*NEEDED, "colour")))
def test_a_providers_reply_is_an_outcome_and_what_is_read_reads_the_same(data: bytes, op: str) -> None:
    message: Any = SimpleNamespace(data=data)
    checked(_outcome(op, message))
    found, error = tried(UNREADABLE, read_reply, data)
    assert error is not None or read_reply(msgspec.json.encode(found)) == found


@given(sent(changed(ASKED)), st.sampled_from(tuple(NEEDED)))
def test_a_request_to_a_provider_has_what_its_op_needs_or_is_refused(data: bytes, op: str) -> None:
    found, error = tried(UNREADABLE, read_request, data, op)
    if error is not None:
        return
    assert all(getattr(found, name) is not None for name in NEEDED[op])
    assert read_request(msgspec.json.encode(found), op) == found


@given(words, st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), st.booleans())
def test_a_traceparent_of_ours_is_read_by_us(message_id: str, trace: bytes, span: bytes, own: bool) -> None:
    if not any(trace) or not any(span):
        return
    made = traceparent((trace.hex(), "" if own else span.hex()), message_id)
    found = trace_of({"Traceparent": made}, "req_1", Identity("a"))
    assert found.trace_id == trace.hex()
    assert own or found.parent_span_id == span.hex()
