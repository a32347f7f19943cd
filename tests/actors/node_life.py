"""A node that is told things, and whose turns are committed by nobody."""

from typing import Any

import msgspec

from actors.node.kind import NODE
from actors.node.messages import (
    HeartbeatSeen,
    QuarantineNode,
    RegisterNode,
    ReturnNode,
    SshAddress,
    UpdateNode,
)
from actors.node.state import Node
from amends.ports.steps import Outcome
from amends.turn.context import Context
from amends.turn.decision import Decision
from amends.turn.messages import Envelope, StepDone, TimerFired
from amends.values.limits import Limits
from amends.values.records import StepRow
from supervisors.rental import RENTAL
from supervisors.timing import timing

SSH = SshAddress(host="127.0.0.1", port=22, host_key="ssh-ed25519 AAAA")
ONE, TWO = "am-" + "1" * 26, "am-" + "2" * 26
EMPTY: dict[str, Any] = {"mounts": [], "users": [], "foreign": []}
DONE = Outcome("done")
OTHER_KEY = Outcome("failed", "ssh_host_key_mismatch", may_have_run=False)


class Facts:
    """What a node's decisions may ask of others."""

    def __init__(self) -> None:
        self.expected: list[str] = []
        self.dirty = False
        self.assignment: tuple[str, str] | None = None
        self.boot_id = ""
        self.keys: dict[str, str] = {}
        self.ssh_works = self.heard = True
        self.concerned: list[str] = []
        self.last_us = 0
        self.restored = 0

    def ssh_works_elsewhere(self, node_id: str, since_us: int) -> bool:
        return self.ssh_works

    def expected_users(self, node_id: str) -> list[str]:
        return self.expected

    def mounting_on(self, node_id: str) -> list[str]:
        return []

    def owed_mounts(self, node_id: str) -> list[str]:
        return []

    def expected_mounts(self, node_id: str) -> list[str]:
        return []

    def attachments_on(self, node_id: str) -> list[str]:
        return []

    def is_dirty(self, node_id: str) -> bool:
        return self.dirty

    def debtors(self, node_id: str) -> list[str]:
        return []

    def assignment_of(self, node_id: str) -> tuple[str, str] | None:
        return self.assignment

    def last_seen_us(self, node_id: str) -> int:
        return self.last_us

    def is_heard(self, node_id: str) -> bool:
        return self.heard

    def concerned_by_loss(self, node_id: str, beat_us: int) -> list[str]:
        return self.concerned

    def heard_boot(self, node_id: str) -> str:
        return self.boot_id

    def node_with_key(self, host_key: str) -> str | None:
        return self.keys.get(host_key)


class Life:
    """One node, turn after turn."""

    def __init__(self) -> None:
        self.facts = Facts()
        limits = Limits(timing("acceptance", {}))
        self.context = Context((RENTAL,), epoch=1, limits=limits, facts=self.facts)
        self.state: Node | None = None
        self.turn: Decision
        self.asked: list[StepRow] = []
        self.audits: list[str] = []
        self.now = 1_000_000

    def take(self, message: Any, actor: str = "runtime") -> None:
        """One turn, committed."""
        self.now += 1_000_000
        env = Envelope(message, actor=actor)
        self.turn = Decision(NODE, "n1", self.state, env, self.context, self.now, self.now.to_bytes(16, "big"))
        if isinstance(message, TimerFired):
            self.turn.cancel(message.name)
        if self.state is None or NODE.takes(self.state, message, command=actor != "runtime"):
            NODE.handlers[type(message)](self.turn.state, message, self.turn)
        self.turn.build()
        self.state = self.turn.state
        self.asked = [step for step in self.turn.steps if step.entity == "node:n1"]  # not what notifications ask for
        self.audits += [f"{audit.action} {audit.target_ref}".removesuffix(" node:n1") for audit in self.turn.audits]

    def end(self, step: StepRow, outcome: Outcome) -> None:
        """The outcome of a step arrives."""
        args = msgspec.json.decode(step.args)
        done = StepDone(step.step_id, step.name, step.attempt, step.target, args, outcome, 1, 2, "t" * 32, "s" * 16)
        self.take(done)

    def timer(self, name: str) -> None:
        """A timer of the node is due."""
        self.take(TimerFired(name))

    @staticmethod
    def args(step: StepRow) -> dict[str, Any]:
        """What a step is asked with."""
        args: dict[str, Any] = msgspec.json.decode(step.args)
        return args

    def next(self, name: str) -> StepRow:
        """The one step that the last turn intended."""
        (step,) = self.asked
        assert step.name == name
        return step

    def reconcile(self) -> StepRow:
        """What the agent is asked, once the probe that comes before it has gone well."""
        self.end(self.next("ssh.probe"), DONE)
        return self.next("agent.reconcile")

    def inventory(self, *users: str) -> Outcome:
        return Outcome("done", data=EMPTY | {"users": list(users)})

    @property
    def node(self) -> Node:
        assert self.state is not None
        return self.state


def ready() -> Life:
    """A node that is ready."""
    life = Life()
    life.take(RegisterNode(node_id="n1", ssh=SSH))
    life.take(HeartbeatSeen("b1", 1))
    life.end(life.next("ssh.probe"), DONE)
    assert life.node.state == "ready"
    return life


def returning(life: Life) -> StepRow:
    """An operator has quarantined the node and lets it back; what its agent is asked."""
    life.take(QuarantineNode(node_id="n1", reason="odd noises"), "operator:o")
    life.take(ReturnNode(node_id="n1", reason="silence"), "operator:o")
    return life.reconcile()


def move(life: Life) -> StepRow:
    life.take(UpdateNode(node_id="n1", ssh=SSH, reason="moved"), "operator:o")
    (probe,) = [step for step in life.asked if step.name == "ssh.probe"]
    return probe
