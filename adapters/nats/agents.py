"""Node agents: heartbeats in, tasks out, results in. One subscription each for all nodes; nothing per node."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from adapters.nats.agent_messages import (
    MAX_HEARTBEAT_BYTES,
    MAX_RESULT_BYTES,
    MOUNT_OPS,
    PROTO,
    SPOKEN,
    Heartbeat,
    TaskResult,
)
from adapters.nats.agent_outcomes import MALFORMED, late_outcome, outcome
from adapters.nats.beats import SUBJECT, Beat
from adapters.nats.publishing import traceparent
from amends.ports.steps import Outcome, StepCall
from amends.values.canonical import UNREADABLE

log = logging.getLogger("amends.agents")
RESEND_S = 0.5
MAX_UNASKED: Final = 64  # results read of a node that answer none of its tasks, until the next task
MAX_ANSWERED: Final = 1024
MOUNT_FIELDS: Final = ("attachment_id", "attempt_id", "namespace_id", "mode", "mount_path", "source")
Late = Callable[[str, str, Outcome], None]  # node, task, what it says


class _Named(msgspec.Struct):
    task_id: str


class _Beat(Heartbeat, frozen=True):
    """A heartbeat whose boot id is yet to be looked at: its pattern costs more than all the rest of the reading."""

    boot_id: Annotated[str, Meta(min_length=1, max_length=128)]


class Heartbeats:
    """Receives heartbeats and hands them on as (node_id, boot_id), many at once; counts what it cannot read.

    On a connection of its own, made with `take` and `drop`: a flood of them takes nobody else's messages along.
    """

    def __init__(self, heard: Callable[[Sequence[tuple[str, str]]], None]) -> None:
        self._heard = heard
        self._decode = msgspec.json.Decoder(_Beat).decode
        self._subscription: Subscription | None = None
        self.received = self.malformed = self.dropped = self.unspoken = 0

    def drop(self, subject: str) -> None:
        """The connection has dropped one, as they come faster than they are read."""
        self.dropped += 1

    async def start(self, client: Client) -> None:
        """Subscribe on that connection."""
        self._subscription = await client.subscribe(SUBJECT, cb=self._on_message)

    async def _on_message(self, message: Msg) -> None:
        """One that the driver has taken apart: with headers, or on another connection."""
        self.take([(message.subject.rpartition(".")[2].encode(), message.data)])

    def take(self, beats: Sequence[Beat]) -> None:
        """These have arrived, now."""
        self.received += len(beats)
        decode, good = self._decode, list[tuple[str, str]]()
        for node, data in beats:
            try:
                beat = decode(data)
            except UNREADABLE:
                continue
            boot_id = beat.boot_id
            if len(data) <= MAX_HEARTBEAT_BYTES and boot_id.isascii() and boot_id.isprintable():
                self.unspoken += beat.proto not in SPOKEN  # it lives all the same
                good.append((node.decode(errors="replace"), boot_id))
        self.malformed += len(beats) - len(good)
        self._heard(good)


class AgentTasks:
    """The step runner `agent`: publishes a task until its result comes or its time is over.

    `node_epoch` gives a node's present epoch, None if there is no such node: a task of an older one is not sent; and
    while `may_act` says no, none is. A result of a task that nobody waits for any more goes to `late` (node, task);
    without it, and beyond `MAX_UNASKED` of a node until its next task, it is dropped and counted (`unasked`).
    """

    def __init__(
        self, client: Client, runtime_epoch: int, now_us: Callable[[], int], node_epoch: Callable[[str], int | None],
        may_act: Callable[[], bool] = lambda: True, late: Late | None = None,
    ) -> None:  # fmt: skip
        self._client, self._epoch, self._now, self._node_epoch = client, runtime_epoch, now_us, node_epoch
        self._may_act, self._late = may_act, late
        self._waiting: dict[str, dict[str, asyncio.Future[TaskResult]]] = {}  # by node and task
        self._unasked: dict[str, int] = {}  # results of a node that answered none of its tasks
        self._answered: deque[str] = deque(maxlen=MAX_ANSWERED)  # tasks whose result may come once more
        self._decoder = msgspec.json.Decoder(TaskResult)
        self.unasked = 0

    async def start(self) -> None:
        """Subscribe to results."""
        await self._client.subscribe("amends.v1.result.*", cb=self._on_result)

    async def run(self, call: StepCall) -> Outcome:
        """Send the task, unchanged, until the agent answers, the time is over or the node is another one."""
        args = call.args
        node_id, op = args["node_id"], call.name.removeprefix("agent.")
        task_id = "task_" + call.step_id.partition("_")[2]
        task = {
            "task_id": task_id, "op": op, "node_epoch": args["node_epoch"], "runtime_epoch": self._epoch,
            "ttl_ms": call.timeout_ms, "deadline_us": self._now() + call.timeout_ms * 1000, "proto": PROTO,
            **_fields(op, args),
        }  # fmt: skip
        payload = msgspec.json.encode(task)
        headers = {"traceparent": traceparent((call.trace_id, call.span_id), call.step_id)}
        future: asyncio.Future[TaskResult] = asyncio.get_running_loop().create_future()
        if node_id not in self._waiting:
            self._unasked.pop(node_id, None)
        self._waiting.setdefault(node_id, {})[task_id] = future
        try:
            async with asyncio.timeout(call.timeout_ms / 1000):
                while not future.done():
                    if self._node_epoch(node_id) != args["node_epoch"]:
                        return Outcome("failed", "stale_epoch", "the node was retired or begun anew meanwhile")
                    if self._may_act():
                        await self._client.publish(f"amends.v1.task.{node_id}", payload, headers=headers)
                    await asyncio.wait({future}, timeout=RESEND_S)
        except TimeoutError:
            return Outcome("unknown", "agent_timeout", "the node's agent gave no result in time")
        finally:
            del self._waiting[node_id][task_id]
            self._unasked.pop(node_id, None)
            if not self._waiting[node_id]:
                del self._waiting[node_id]
        result = future.result()
        if result.status != "error":  # whoever failed may still say that it is done after all
            self._answered.append(task_id)
        return outcome(op, result, args.get("mode", ""))

    async def _on_result(self, message: Msg) -> None:
        node_id = message.subject.rpartition(".")[2]
        waiting = self._waiting.get(node_id, {})
        if not self._reads(node_id, waiting):
            self.unasked += 1
            return  # nobody asked this node, or it says other things than it was asked: not worth reading
        try:
            if len(message.data) > MAX_RESULT_BYTES:
                raise msgspec.ValidationError(f"larger than {MAX_RESULT_BYTES} bytes")
            result = self._decoder.decode(message.data)
        except UNREADABLE as error:
            log.warning("a result on %s cannot be read: %s", message.subject, error)
            named = _named(message.data)
            if named in waiting:
                _answer(waiting[named], TaskResult(named, "error", MALFORMED, f"the result cannot be read: {error}"))
            else:  # it answers none of them; they are sent again
                self.unasked += 1
                self._unasked[node_id] = self._unasked.get(node_id, 0) + (not waiting)
            return
        if result.task_id in waiting:
            _answer(waiting[result.task_id], result)
            return
        self._unasked[node_id] = self._unasked.get(node_id, 0) + 1
        if self._late is not None and result.task_id not in self._answered:
            self._late(node_id, result.task_id, late_outcome(result))
        else:
            self.unasked += 1

    def _reads(self, node_id: str, waiting: dict[str, asyncio.Future[TaskResult]]) -> bool:
        if self._unasked.get(node_id, 0) >= MAX_UNASKED:
            return False
        return bool(waiting) or (self._late is not None and self._node_epoch(node_id) is not None)


def _fields(op: str, args: dict[str, Any]) -> dict[str, Any]:
    """What the task says besides its op, its epochs and its time."""
    if op in MOUNT_OPS:
        return {name: args[name] for name in MOUNT_FIELDS}
    if op == "inventory":
        return {}
    return {"expected": args["expected"], "report_only": args.get("report_only", False)}


def _named(data: bytes) -> str:
    """The task that an unreadable result answers, "" where that cannot be told."""
    if len(data) > MAX_RESULT_BYTES:
        return ""
    try:
        return msgspec.json.decode(data, type=_Named).task_id
    except UNREADABLE:
        return ""


def _answer(future: asyncio.Future[TaskResult], result: TaskResult) -> None:
    if not future.done():
        future.set_result(result)
