"""The node agent: heartbeats out, tasks in, results out and kept (api.md 6). Decides nothing.

A task is answered once and its result kept before it is sent, so a repeat gets the same result and does
nothing. Its time, `ttl_ms`, is counted from its first receipt by a clock that nobody sets: what is over is not begun.
This release knows one op, `reconcile`: it reports, and takes away mounts of its own record only; with `report_only` not
even those.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from adapters.nats.agent_link import AgentLink
from adapters.nats.agent_machine import MountTable, NoMounts, customer_users, machine_boot_id
from adapters.nats.agent_store import AgentStore
from adapters.nats.agents import MAX_INVENTORY, MAX_NAME, PROTO, Heartbeat, Inventory, TaskResult

log = logging.getLogger("amends.agent")
MAX_TASK_BYTES: Final = 64 * 1024
PENDING_TASKS: Final = 256
MAX_NAMES: Final = 4096
MAX_WAITING: Final = 1024  # tasks received and not done yet, of which the first receipt is remembered
NODE_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

Epoch = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Names = Annotated[list[Annotated[str, Meta(max_length=MAX_NAME)]], Meta(max_length=MAX_NAMES)]


class Expected(Struct, frozen=True):
    """What the runtime believes to be on the node: attachment ids and user names."""

    mounts: Names = []
    users: Names = []


class Task(Struct, frozen=True):
    """`task.<node_id>`; the fields of ops that are not known here are not looked at."""

    task_id: Annotated[str, Meta(min_length=1, max_length=128)]
    op: Annotated[str, Meta(min_length=1, max_length=64)]
    node_epoch: Epoch
    runtime_epoch: Epoch
    expected: Expected | None = None
    report_only: bool = False
    ttl_ms: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    proto: int = 1


class NodeAgent:
    """One node's agent, on a connection of its own or on a link that is lent to it.

    `state_dir` is its own; `options` as nats-py takes them (user, password, …); counters are for display.
    """

    def __init__(
        self, node_id: str, servers: Sequence[str] | AgentLink, state_dir: Path, *, interval_ms: int = 5000,
        boot_id: str | None = None, users: Callable[[], Sequence[str]] = customer_users,
        mounts: MountTable | None = None, now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> None:  # fmt: skip
        if NODE_ID.fullmatch(node_id) is None:
            raise ValueError(f"not a node's name: {node_id!r}; at most 63 lower-case letters, digits and dashes")
        if interval_ms < 10:
            raise ValueError("interval_ms must be at least 10")
        self.node_id, self.interval_ms = node_id, interval_ms
        self.boot_id = boot_id or machine_boot_id()
        self.beats = self.tasks = self.malformed = self.failed = 0
        self._state_dir, self._users, self._now, self._monotonic = state_dir, users, now_us, monotonic
        self._over_at: dict[str, float] = {}  # of tasks received and not done yet, the oldest first
        self._mounts: MountTable = mounts or NoMounts()
        self._decoder = msgspec.json.Decoder(Task)
        self._lent = isinstance(servers, AgentLink)
        name = f"amends-agent-{node_id}"
        self._link = servers if isinstance(servers, AgentLink) else AgentLink(servers, name=name, **options)
        self._store: AgentStore | None = None
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take the directory and begin; NATS may come later. Raises StoreUnusable, OSError."""
        if self._running is None:
            self._store = AgentStore(self._state_dir)
            self._running = asyncio.create_task(self._link.run(self))

    async def wait(self) -> None:
        """Wait for the end, which comes with `stop` or with an error; raises that error."""
        running = self._running  # `stop` may take it away meanwhile
        if running is not None:
            await asyncio.wait({running})
            if not running.cancelled():
                running.result()

    async def stop(self) -> None:
        """End it, and the connection if it is its own."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait({running})
        if not self._lent:
            await self._link.close()
        if self._store is not None:
            self._store.close()
            self._store = None

    async def serve(self, client: Client) -> None:
        """Serve on an open connection until it is closed for good; the link calls this."""
        assert self._store is not None
        subscription = await client.subscribe(
            f"amends.v1.task.{self.node_id}", cb=partial(self._on_task, client, self._store),
            pending_msgs_limit=PENDING_TASKS, pending_bytes_limit=PENDING_TASKS * MAX_TASK_BYTES,
        )  # fmt: skip
        try:
            await self._beat(client)
        finally:
            with suppress(NatsError, OSError):
                await subscription.unsubscribe()

    async def _beat(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not client.is_closed:
            if client.is_connected:  # while it is not, beats would only pile up and arrive late, all at once
                self.beats += 1
                beat = Heartbeat(self.boot_id, self.beats, self._now(), proto=PROTO)
                await self._publish(client, "hb", beat)
            due = max(due + self.interval_ms / 1000, loop.time())  # after a stall no burst
            await asyncio.sleep(due - loop.time())

    async def _publish(self, client: Client, kind: str, body: Heartbeat | TaskResult) -> None:
        try:
            await client.publish(f"amends.v1.{kind}.{self.node_id}", msgspec.json.encode(body))
        except (NatsError, OSError) as error:
            self.failed += 1  # the runtime asks again, and the next beat comes
            log.debug("%s of %s was not sent: %s", kind, self.node_id, error)

    async def _on_task(self, client: Client, store: AgentStore, message: Msg) -> None:
        try:
            if len(message.data) > MAX_TASK_BYTES:
                raise msgspec.ValidationError("too large")
            task = self._decoder.decode(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.malformed += 1
            log.warning("a task for %s cannot be read: %s", self.node_id, error)
            return
        self.tasks += 1
        kept = store.result(task.task_id)
        await self._publish(client, "result", kept or await self._answer(store, task))

    def _is_over(self, task: Task) -> bool:
        """Whether its time has passed since it was first received here."""
        if task.ttl_ms is None:
            return False
        now = self._monotonic()
        over_at = self._over_at.setdefault(task.task_id, now + task.ttl_ms / 1000)
        if len(self._over_at) > MAX_WAITING:
            del self._over_at[next(iter(self._over_at))]
        return now >= over_at

    async def _answer(self, store: AgentStore, task: Task) -> TaskResult:
        if task.proto > PROTO:
            return failure(task, "unsupported_proto", f"this agent speaks up to {PROTO}, the task is of {task.proto}")
        if self._is_over(task):
            return failure(task, "expired", "its time is over")
        stale = store.stale(task.node_epoch, task.runtime_epoch)
        if stale:
            return failure(task, "stale_epoch", stale)
        try:
            await asyncio.to_thread(store.raise_epochs, task.node_epoch, task.runtime_epoch)
            if task.op == "reconcile":
                if not task.report_only and not await self._take_away(task):
                    return failure(task, "expired", "its time was over before all of it was done")
                result = await self._inventory(task)
            else:
                result = failure(task, "unsupported_op", f"this agent does not know the op {task.op!r}")
            await asyncio.to_thread(store.keep, result)
            self._over_at.pop(task.task_id, None)
        except OSError as error:
            log.warning("the agent of %s cannot do or keep %s: %s", self.node_id, task.task_id, error)
            return failure(task, "agent_failed", f"the agent cannot use its disk or machine: {error}")
        return result

    async def _take_away(self, task: Task) -> bool:
        """Unmount what is not expected; False if the task's time is over before that is done."""
        expected = (task.expected or Expected()).mounts
        for attachment_id in [each for each in self._mounts.own() if each not in expected]:
            if self._is_over(task):
                return False
            await self._mounts.unmount(attachment_id)
        return True

    async def _inventory(self, task: Task) -> TaskResult:
        users = await asyncio.to_thread(lambda: list(self._users()))
        inventory = Inventory(_names(self._mounts.own()), _names(users), _names(self._mounts.foreign()))
        return TaskResult(task.task_id, "ok", "", "", [], {}, inventory)


def _names(found: Sequence[str]) -> list[str]:
    """As many, and as much of each, as the runtime takes."""
    return [name[:MAX_NAME] for name in sorted(found)[:MAX_INVENTORY]]


def failure(task: Task, code: str, message: str) -> TaskResult:
    """The result of a task that was not done."""
    return TaskResult(task.task_id, "error", code, message, [], {})
