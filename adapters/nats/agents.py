"""Node agents: heartbeats in, tasks out, results in. One subscription each for all nodes; nothing per node."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from adapters.nats.publishing import traceparent
from amends.ports import Outcome, StepCall

log = logging.getLogger("amends.agents")
RESEND_S = 0.5
MAX_HEARTBEAT_BYTES = 16 * 1024


class Heartbeat(Struct, frozen=True):
    """`hb.<node_id>` (api.md 6). `health` is stored as is and reserved."""

    boot_id: str
    seq: int
    sent_us: int
    health: dict[str, Any] | None = None
    version: str | None = None


class TaskResult(Struct, frozen=True):
    """`result.<node_id>` (api.md 6)."""

    task_id: str
    status: str
    code: str | None = None
    message: str | None = None
    holders: list[Any] | None = None
    observed: dict[str, Any] | None = None
    inventory: dict[str, Any] | None = None


class Heartbeats:
    """Receives heartbeats and hands (node_id, boot_id) on; counts what it cannot read."""

    def __init__(self, client: Client, heard: Callable[[str, str], None]) -> None:
        self._client, self._heard = client, heard
        self._decoder = msgspec.json.Decoder(Heartbeat)
        self._subscription: Subscription | None = None
        self.received = self.malformed = 0

    async def start(self) -> None:
        """Subscribe."""
        self._subscription = await self._client.subscribe("amends.v1.hb.*", cb=self._on_message)

    async def _on_message(self, message: Msg) -> None:
        self.received += 1
        try:
            if len(message.data) > MAX_HEARTBEAT_BYTES:
                raise msgspec.ValidationError("too large")
            beat = self._decoder.decode(message.data)
            if not 0 < len(beat.boot_id) <= 128:
                raise msgspec.ValidationError("boot_id must have 1 to 128 characters")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.malformed += 1
            return
        self._heard(message.subject.rpartition(".")[2], beat.boot_id)


class AgentTasks:
    """The step runner `agent`: publishes a task until its result comes or its time is over."""

    def __init__(self, client: Client, runtime_epoch: int, now_us: Callable[[], int]) -> None:
        self._client, self._epoch, self._now = client, runtime_epoch, now_us
        self._waiting: dict[str, asyncio.Future[TaskResult]] = {}
        self._decoder = msgspec.json.Decoder(TaskResult)

    async def start(self) -> None:
        """Subscribe to results."""
        await self._client.subscribe("amends.v1.result.*", cb=self._on_result)

    async def run(self, call: StepCall) -> Outcome:
        """Send the task, unchanged, until the agent answers."""
        args = call.args
        task_id = "task_" + call.step_id.partition("_")[2]
        task = {
            "task_id": task_id, "op": call.name.removeprefix("agent."), "node_epoch": args["node_epoch"],
            "runtime_epoch": self._epoch, "deadline_us": self._now() + call.timeout_ms * 1000,
            "expected": args["expected"],
        }  # fmt: skip
        payload = msgspec.json.encode(task)
        headers = {"traceparent": traceparent((call.trace_id, call.span_id))}
        future: asyncio.Future[TaskResult] = asyncio.get_running_loop().create_future()
        self._waiting[task_id] = future
        try:
            async with asyncio.timeout(call.timeout_ms / 1000):
                while not future.done():
                    await self._client.publish(f"amends.v1.task.{args['node_id']}", payload, headers=headers)
                    await asyncio.wait({future}, timeout=RESEND_S)
            result = future.result()
        except TimeoutError:
            return Outcome("unknown", "agent_timeout", "the node's agent gave no result in time")
        finally:
            del self._waiting[task_id]
        if result.status == "error":
            return Outcome("failed", result.code or "agent_error", result.message or "")
        return Outcome("done", data=result.inventory or {})

    async def _on_result(self, message: Msg) -> None:
        try:
            result = self._decoder.decode(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            log.warning("a result on %s cannot be read: %s", message.subject, error)
            return
        future = self._waiting.get(result.task_id)
        if future is not None and not future.done():
            future.set_result(result)
