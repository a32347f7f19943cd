"""Real actors told real messages, each turn committed to a real journal: what the views are held to.

Time is made up: a second passes with every turn. Nothing is connected; the tests say how each step ends.
"""

from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Struct

from actors.account.messages import CreateAccount
from actors.allocation.messages import ReleaseAllocation, RequestAllocation, RetryCleanup
from actors.between import CleanupLost, Offer
from actors.node.messages import HeartbeatSeen, RegisterNode, SshAddress
from actors.tables import AssignmentRow, DebtRow
from amends.delivery.notifications import Probe
from amends.domain.domain import rows_of
from amends.ports.journal import Head
from amends.ports.steps import Outcome, OutcomeKind
from amends.runtime.policy import RUNTIME_HANDLERS
from amends.turn.context import Context
from amends.turn.decision import Decision
from amends.turn.messages import CommandInfo, Envelope, StepDone, TimerFired
from amends.turn.seal import seal
from amends.values import ids
from amends.values.limits import Limits
from amends.values.records import StepRow
from supervisors.rental import RENTAL
from tests.policies import OLD_POLICY

KINDS = {kind.name: kind for kind in RENTAL.kinds}
START_US = 1_768_478_400_000_000
LIMITS: dict[str, int | tuple[int, int]] = {
    "setup_fail_limit": 3, "min_failed_probes": 1, "probe_timeout_ms": 300,
    "allocation_deadline_ms": 3000, "activation_tries": 3, "activation_backoff_ms": (20, 100), "cleanup_tries": 2,
    "cleanup_backoff_ms": (50, 200), "notification_tries": 2, "notification_backoff_ms": (50, 200),
    "suspect_after_ms": 600, "offline_after_ms": 1500, "flap_limit": 4, "flap_window_ms": 10_000,
    "unmount_tries": 2, "unmount_backoff_ms": (50, 200),
    "world_grace_ms": 2000,
}  # fmt: skip


def context(epoch: int) -> Context:
    """The rental domain's context with tight budgets."""
    facts = Facts()
    return Context(
        (RENTAL,), epoch=epoch, limits=Limits(LIMITS), facts=facts, policy_sha256="ab" * 32, address_of=facts.address_of
    )


class Facts:
    """What decisions may know of other actors, kept up by the book."""

    policy = OLD_POLICY
    restored = 0
    mirrors = True

    def __init__(self) -> None:
        self.states: dict[tuple[str, str], Any] = {}
        self.held: dict[str, tuple[str, str]] = {}
        self.debts: dict[str, set[str]] = {}

    def held_nodes(self, domain: str | None, node_ids: Any) -> list[str]:
        return ["n1"]

    def concerned_by_loss(self, node_id: str, beat_us: int) -> list[str]:
        held = self.held.get(node_id)
        return [held[0]] if held is not None else []

    def policy_of(self, sha256: str) -> Any:
        return self.policy

    def posted_us(self, meter_id: str) -> int | None:
        return None

    def payer(self, account_id: str, customer: str) -> tuple[str, str] | None:
        account = self.account(account_id)
        return (account_id, account.currency) if account is not None else None

    def balance_minor(self, account_id: str) -> int:
        return 0

    def account(self, account_id: str) -> Any:
        return self.states.get(("account", account_id))

    def node(self, node_id: str) -> Any:
        return self.states.get(("node", node_id))

    def node_with_key(self, host_key: str) -> str | None:
        return None

    def heard_boot(self, node_id: str) -> str:
        return ""

    def address_of(self, target: str) -> tuple[str, int]:
        node = self.node(target.partition(":")[2]) if target.startswith("node:") else None
        return (node.ssh_host, node.ssh_port) if node is not None else ("", 0)

    def assignment_of(self, node_id: str) -> tuple[str, str] | None:
        return self.held.get(node_id)

    def attachments_of(self, allocation_id: str) -> list[str]:
        return []

    def attachments_on(self, node_id: str) -> list[str]:
        return []

    def attachment(self, attachment_id: str) -> Any:
        return self.states.get(("attachment", attachment_id))

    def mounting_on(self, node_id: str) -> list[str]:
        return []

    def owed_mounts(self, node_id: str) -> list[str]:
        return []

    def expected_mounts(self, node_id: str) -> list[str]:
        return []

    def touched_us(self, ref: str) -> int:
        return 0

    def mounts_on(self, node_id: str) -> list[tuple[str, str, str]]:
        return []

    def last_seen_us(self, node_id: str) -> int:
        return 0

    def is_dirty(self, node_id: str) -> bool:
        return bool(self.debts.get(node_id))

    def debtors(self, node_id: str) -> list[str]:
        states = ((key, state) for key, state in self.states.items() if key[0] == "allocation")
        return [key[1] for key, state in states if state.node_id == node_id and state.cleanup_pending]

    def is_heard(self, node_id: str) -> bool:
        return True

    def ssh_works_elsewhere(self, node_id: str, since_us: int) -> bool:
        return True

    def expected_users(self, node_id: str) -> list[str]:
        return []

    def follow(self, row: Struct) -> None:
        if isinstance(row, AssignmentRow) and row.state == "ended":
            self.held.pop(row.node_id, None)
        elif isinstance(row, AssignmentRow):
            self.held[row.node_id] = (row.allocation_id, row.state)
        elif isinstance(row, DebtRow) and row.settled_us is None:
            self.debts.setdefault(row.node_id, set()).add(row.debt_id)
        elif isinstance(row, DebtRow):
            self.debts[row.node_id].discard(row.debt_id)


class Book:
    """Tells actors things and commits what they decide. `after_turn` is called after each commit."""

    def __init__(self, journal: Any, head: Head, shared: Context) -> None:
        self._journal, self.head, self._context = journal, head, shared
        self.facts: Facts = shared.facts
        self.now_us = START_US
        self.intended: dict[str, StepRow] = {}
        self.after_turn: Callable[[], Awaitable[None]] | None = None
        self._count = 0

    def state(self, kind: str, identifier: str) -> Any:
        return self.facts.states.get((kind, identifier))

    async def tell(self, kind: str, identifier: str, env: Envelope) -> Decision:
        """One turn; durable messages to other actors are told at once."""
        self.now_us += 1_000_000
        self._count += 1
        state = self.state(kind, identifier)
        if isinstance(env.message, TimerFired):
            timers = {name: due for name, due in state.timers.items() if name != env.message.name}
            state = msgspec.structs.replace(state, timers=timers)
        seed = self._count.to_bytes(16, "big")
        decision = Decision(KINDS[kind], identifier, state, env, self._context, self.now_us, seed)
        handler = RUNTIME_HANDLERS.get(type(env.message)) or KINDS[kind].handlers[type(env.message)]
        if state is None or KINDS[kind].takes(state, env.message, command=env.command is not None):
            handler(state, env.message, decision)
        turn = decision.build()
        commit = seal([turn], self.head, rows_of((RENTAL,)))
        await self._journal.commit(commit)
        self.head = commit.after
        self.facts.states[(kind, identifier)] = decision.state
        for spawn in decision.spawned:
            self.facts.states[(spawn.kind, spawn.id)] = spawn.state
        for row in decision.rows:
            self.facts.follow(row)
        for step in decision.steps:
            shape = self._context.steps[step.name].args
            assert shape is not None
            msgspec.json.decode(step.args, type=shape)  # what reaches an adapter is what the step declares
            self.intended[step.step_id] = step
        if self.after_turn is not None:
            await self.after_turn()
        for sent in decision.sent:
            told = Envelope(
                sent.message, trace_id=sent.row.trace_id, span_id=sent.row.span_id, message_id=sent.row.message_id
            )
            await self.tell(sent.kind, sent.id, told)
        return decision

    async def command(
        self, kind: str, identifier: str, message: Struct, caller: str = "shop", key: str = ""
    ) -> Decision:
        """A command with a caller's trace above it."""
        self._count += 1
        request_id = f"req_{self._count}"
        info = CommandInfo(
            caller, key or f"key-{self._count}", "hash", f"cmd.{kind}.{type(message).__name__}", request_id,
            ids.trace_id("caller", request_id), ids.span_id("command", request_id),
            ids.span_id("caller", request_id), self.now_us,
        )  # fmt: skip
        env = Envelope(
            message, trace_id=info.trace_id, span_id=info.span_id, actor=caller, request_id=request_id, command=info
        )
        return await self.tell(kind, identifier, env)

    def step(self, entity: str, name: str) -> StepRow:
        """The intended step of that name."""
        return next(row for row in self.intended.values() if row.entity == entity and row.name == name)

    async def end(
        self, entity: str, name: str, outcome: OutcomeKind = "done", code: str = "", message: str = "", **data: Any
    ) -> Decision:
        """The intended step of that name has ended: it began when its intent had committed."""
        row = self.intended.pop(self.step(entity, name).step_id)
        kind, identifier = ids.split_ref(row.entity)
        done = StepDone(
            row.step_id, row.name, row.attempt, row.target, msgspec.json.decode(row.args),
            Outcome(outcome, code, message, data=data), self.now_us + 100_000, self.now_us + 112_345, row.trace_id,
            ids.span_id("step", row.step_id),
        )  # fmt: skip
        return await self.tell(kind, identifier, Envelope(done, trace_id=row.trace_id, span_id=row.parent_span_id))

    async def timer(self, kind: str, identifier: str, name: str) -> Decision:
        return await self.tell(kind, identifier, Envelope(TimerFired(name)))


async def ready_node(book: Book, node_id: str) -> None:
    address = SshAddress(host="localhost", port=22, host_key=f"ssh-ed25519 {b64encode(node_id.encode()).decode()}")
    await book.command("node", node_id, RegisterNode(node_id=node_id, ssh=address, labels={"site": "a"}))
    await book.tell("node", node_id, Envelope(HeartbeatSeen("boot-1", book.now_us)))
    await book.end(f"node:{node_id}", "ssh.probe")


async def requested(book: Book, node_id: str) -> str:
    """An allocation that has taken the node; returns its id."""
    allocation_id = ids.type_id("alloc", book.now_us, node_id.encode().ljust(10))
    request = RequestAllocation(account_id="acct1", ssh_public_key="ssh-ed25519 BBBB", rate_uminor_per_hour=249_000_000)
    decision = await book.command("allocation", allocation_id, request)
    offer = Envelope(Offer(node_id, 1), trace_id=decision.trace_id, span_id=decision.span_id)
    await book.tell("allocation", allocation_id, offer)
    return allocation_id


async def failed_setup(book: Book) -> str:
    """R02: the key fails, its undo fails, the owed cleanup fails once more and then succeeds."""
    allocation_id = await requested(book, "n1")
    ref = f"allocation:{allocation_id}"
    await book.end(ref, "ssh.user-create")
    await book.end(ref, "ssh.key-install", "failed", "ssh_step_failed", "exit status 1: ‘disk full’")
    await book.end(ref, "ssh.user-remove", "unknown", "ssh_timeout", "no exit status")
    await book.end(ref, "ssh.user-remove", "failed", "ssh_connect_failed", "refused")
    await book.end(ref, "ssh.user-remove")
    return allocation_id


async def exhausted_cleanup(book: Book, node_id: str = "n2") -> str:
    """R04: rented and released; neither lock nor cleanup succeed, until an operator has it tried again."""
    if book.state("node", node_id) is None:
        await ready_node(book, node_id)
    allocation_id = await requested(book, node_id)
    ref = f"allocation:{allocation_id}"
    await book.end(ref, "ssh.user-create")
    await book.end(ref, "ssh.key-install")
    await book.timer("allocation", allocation_id, "activate")
    await book.command("allocation", allocation_id, ReleaseAllocation(allocation_id=allocation_id))
    await book.end(ref, "ssh.user-lock", "failed", "ssh_connect_failed", "refused")
    await book.end(ref, "ssh.user-lock", "failed", "ssh_connect_failed", "refused")
    await book.end(ref, "ssh.user-lock", "failed", "ssh_connect_failed", "refused")
    retry = RetryCleanup(allocation_id=allocation_id, reason="sshd is back")
    await book.command("allocation", allocation_id, retry, caller="operator:ada")
    await book.end(ref, "ssh.user-lock")
    await book.end(ref, "ssh.user-remove")
    return allocation_id


async def lost_cleanup(book: Book) -> str:
    """R02: the key fails, its undo fails, and the node is given up: what it owes is cancelled without a try."""
    await ready_node(book, "n4")
    allocation_id = await requested(book, "n4")
    ref = f"allocation:{allocation_id}"
    await book.end(ref, "ssh.user-create")
    await book.end(ref, "ssh.key-install", "failed", "ssh_step_failed", "exit status 1")
    await book.end(ref, "ssh.user-remove", "failed", "ssh_connect_failed", "refused")
    await book.tell("allocation", allocation_id, Envelope(CleanupLost("the node burnt down")))
    return allocation_id


async def late_notification(book: Book) -> str:
    """R07: one notification cannot be published, is parked and goes out late; all others go out at once."""
    waiting = [row.entity for row in book.intended.values() if row.name == "notification.publish"]
    for _ in range(2):
        await book.end(waiting[0], "notification.publish", "failed", "no_stream", "no stream takes it")
    for entity in waiting[1:]:
        await book.end(entity, "notification.publish")
    await book.tell("notification", ids.split_ref(waiting[0])[1], Envelope(Probe()))
    await book.end(waiting[0], "notification.publish")
    return waiting[0]


async def whole_story(book: Book) -> dict[str, str]:
    """All of it; returns the entities by name."""
    await book.command("account", "acct1", CreateAccount(account_id="acct1", currency="usd"))
    await ready_node(book, "n1")
    await ready_node(book, "n2")
    first = await failed_setup(book)
    second = await exhausted_cleanup(book)
    return {"failed": first, "released": second, "late": await late_notification(book)}
