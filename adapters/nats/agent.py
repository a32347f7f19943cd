"""The node agent: heartbeats out, tasks in, results out and kept (api.md 6). Decides nothing.

A task is answered once and its result kept before it is sent, so a repeat gets the same result and does
nothing. Its time, `ttl_ms`, is counted from its first receipt by a clock that nobody sets: what is over is not begun.
Tasks of different attachments run side by side, those of one in order, and no task stops the heartbeats. A `reconcile`
reports, and takes away mounts of the agent's own record only; with `report_only` not even those. It reports whatever
could not be taken away.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from adapters.nats.agent_link import AgentLink
from adapters.nats.agent_machine import customer_users, machine_boot_id
from adapters.nats.agent_messages import (
    MAX_INVENTORY,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_TASK_BYTES,
    MOUNT_OPS,
    PROTO,
    Expected,
    Heartbeat,
    Inventory,
    MountTask,
    Observed,
    Task,
    TaskResult,
)
from adapters.nats.agent_mounting import Mounting
from adapters.nats.agent_store import AgentStore
from adapters.nats.keyed_lock import KeyedLock
from amends.ports.mounts import Mounts
from amends.values.canonical import UNREADABLE

log = logging.getLogger("amends.agent")
PENDING_TASKS: Final = 256
MAX_RUNNING: Final = 512  # tasks that run or wait for their attachment; what comes beyond is asked again
MAX_WAITING: Final = 1024  # tasks received and not done yet, of which the first receipt is remembered
TAKE_AWAY_S = 10.0  # for one mount in a reconcile: one that hangs must not keep the others
TAKEN_AT_ONCE = 16
TTL_S: Final = 120.0  # of a task that says none
RECONCILE: Final = ""  # its lane; no attachment is called so
NODE_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class NodeAgent:
    """One node's agent, on a connection of its own or on a link that is lent to it.

    `state_dir` is its own; without `mounts` it mounts nothing and knows no op but `reconcile`. `options` as nats-py
    takes them (user, password, …); counters are for display.
    """

    def __init__(
        self, node_id: str, servers: Sequence[str] | AgentLink, state_dir: Path, *, interval_ms: int = 5000,
        boot_id: str | None = None, users: Callable[[], Sequence[str]] = customer_users,
        mounts: Mounts | None = None, now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> None:  # fmt: skip
        if NODE_ID.fullmatch(node_id) is None:
            raise ValueError(f"not a node's name: {node_id!r}; at most 63 lower-case letters, digits and dashes")
        if interval_ms < 10:
            raise ValueError("interval_ms must be at least 10")
        self.node_id, self.interval_ms = node_id, interval_ms
        self.name = f"the agent of {node_id}"
        self.boot_id = boot_id or machine_boot_id()
        self.beats = self.tasks = self.malformed = self.failed = 0
        self._state_dir, self._users, self._now, self._monotonic = state_dir, users, now_us, monotonic
        self._over_at: dict[str, float] = {}  # of tasks received and not done yet, the oldest first
        self._doing: dict[str, asyncio.Task[None]] = {}
        self._mounts, self._one_by_one = mounts, KeyedLock()
        self._mounting: Mounting | None = None
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
            self._mounting = Mounting(self._store, self._mounts) if self._mounts is not None else None
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
        doing = list(self._doing.values())
        for each in doing:
            each.cancel()
        if doing:
            await asyncio.wait(doing)
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
        except UNREADABLE as error:
            self.malformed += 1
            log.warning("a task for %s cannot be read: %s", self.node_id, error)
            return
        self.tasks += 1
        kept = store.result(task.task_id)
        if kept is not None:
            await self._publish(client, "result", kept)
        elif task.task_id not in self._doing and len(self._doing) < MAX_RUNNING:
            self._is_over(task)  # its time begins
            doing = asyncio.create_task(self._do(client, store, task, message.data))
            self._doing[task.task_id] = doing
            doing.add_done_callback(partial(self._ended, task.task_id))

    def _ended(self, task_id: str, doing: asyncio.Task[None]) -> None:
        del self._doing[task_id]
        if not doing.cancelled() and (error := doing.exception()) is not None:
            log.error("the agent of %s failed at %s", self.node_id, task_id, exc_info=error)

    async def _do(self, client: Client, store: AgentStore, task: Task, data: bytes) -> None:
        of_mount: MountTask | None = None
        try:
            if task.op in MOUNT_OPS and self._mounting is not None:
                of_mount = msgspec.json.decode(data, type=MountTask)
        except UNREADABLE as error:
            await self._publish(client, "result", failure(task, "invalid_task", str(error)))
            return
        async with self._one_by_one.of(of_mount.attachment_id if of_mount else RECONCILE):
            result = await self._answer(store, task, of_mount)
        await self._publish(client, "result", result)

    def _is_over(self, task: Task) -> bool:
        """Whether its time has passed since it was first received here."""
        if task.ttl_ms is None:
            return False
        now = self._monotonic()
        over_at = self._over_at.setdefault(task.task_id, now + task.ttl_ms / 1000)
        if len(self._over_at) > MAX_WAITING:
            del self._over_at[next(each for each in self._over_at if each not in self._doing)]
        return now >= over_at

    def _left(self, task: Task) -> float:
        """The seconds that it may still take, with a tenth left over for its result."""
        if task.ttl_ms is None:
            return TTL_S
        over_at = self._over_at.get(task.task_id, 0.0)
        return max(0.0, over_at - task.ttl_ms / 10_000 - self._monotonic())

    async def _answer(self, store: AgentStore, task: Task, of_mount: MountTask | None) -> TaskResult:
        refused = self._refused(store, task)
        if refused is not None:
            return refused
        try:
            await asyncio.to_thread(store.raise_epochs, task.node_epoch, task.runtime_epoch)
            result = await self._act(task, of_mount)
            if result.code != "expired":
                await asyncio.to_thread(store.keep, result)
                self._over_at.pop(task.task_id, None)
        except OSError as error:
            log.warning("the agent of %s cannot do or keep %s: %s", self.node_id, task.task_id, error)
            return failure(task, "agent_failed", f"the agent cannot use its disk or machine: {error}")
        return result

    def _refused(self, store: AgentStore, task: Task) -> TaskResult | None:
        if task.proto > PROTO:
            return failure(task, "unsupported_proto", f"this agent speaks up to {PROTO}, the task is of {task.proto}")
        if self._is_over(task):
            return failure(task, "expired", "its time is over")
        stale = store.stale(task.node_epoch, task.runtime_epoch)
        return failure(task, "stale_epoch", stale) if stale else None

    async def _act(self, task: Task, of_mount: MountTask | None) -> TaskResult:
        mounting = self._mounting
        if task.op == "inventory":  # a question and nothing else, whatever the task says besides
            return await self._inventory(mounting, task, {})
        if task.op == "reconcile":
            kept = await self._take_away(mounting, task) if mounting is not None and not task.report_only else {}
            return await self._inventory(mounting, task, kept)
        if of_mount is None or mounting is None:
            return failure(task, "unsupported_op", f"this agent does not know the op {task.op!r}")
        return await mounting.do(task.task_id, task.op, of_mount, partial(self._left, task))

    async def _take_away(self, mounting: Mounting, task: Task) -> dict[str, str]:
        """Unmount what is not expected, side by side; what could not be taken away, and why."""
        places = asyncio.Semaphore(TAKEN_AT_ONCE)

        async def take(attachment_id: str) -> str:
            async with places:
                if self._is_over(task):
                    return "the task's time was over before its turn"
                try:
                    within_s = min(TAKE_AWAY_S, self._left(task))
                    async with asyncio.timeout(within_s), self._one_by_one.of(attachment_id):
                        return await mounting.take_away(attachment_id, partial(self._left, task))
                except TimeoutError:
                    return "it has not ended in time"
                except OSError as error:
                    return f"the agent cannot use its disk or machine: {error}"

        expected = {*(task.expected or Expected()).mounts}
        unexpected = [each for each in mounting.held() if each not in expected]
        said = await asyncio.gather(*map(take, unexpected))
        return {each: why for each, why in zip(unexpected, said, strict=True) if why}

    async def _inventory(self, mounting: Mounting | None, task: Task, kept: dict[str, str]) -> TaskResult:
        """What there is; of the record's, what could not be taken away counts as mounted, for it may be."""
        users = await asyncio.to_thread(lambda: list(self._users()))
        own, foreign = (mounting.own(kept), await mounting.foreign()) if mounting else ([], [])
        inventory = Inventory(_names(own), _names(users), _names(foreign))
        words = "; ".join(f"{each}: {why}" for each, why in sorted(kept.items()))
        message = f"not taken away: {words}"[:MAX_MESSAGE] if kept else ""
        if message:
            log.warning("%s: %s", self.node_id, message)
        return TaskResult(task.task_id, "ok", "", message, [], Observed(), inventory)


def _names(found: Sequence[str]) -> list[str]:
    """As many, and as much of each, as the runtime takes; what is no text shows as question marks."""
    return [name[:MAX_NAME].encode(errors="replace").decode() for name in sorted(found)[:MAX_INVENTORY]]


def failure(task: Task, code: str, message: str) -> TaskResult:
    """The result of a task that was not done."""
    return TaskResult(task.task_id, "error", code, message, [], Observed())
