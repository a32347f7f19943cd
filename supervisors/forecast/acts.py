"""What is tried on a stage: a node is lost, a command is sent.

The messages are those that the detector and the API send; what becomes of them the actors decide.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from actors.account.messages import CreateAccount
from actors.node.messages import Silent, Verdict
from actors.node.state import Node
from amends.turn.messages import CommandInfo, Envelope
from amends.values.errors import Rejected
from supervisors.forecast.rehearsal import Rehearsal

LOST = "offline"
STEPS_END_WELL = "every step ends well at its first try, and at once"
NOTHING_ELSE = "nothing else happens meanwhile; messages and turns that are under way now are left out"


class Act(Struct):
    """What was tried: what was assumed, and how the command was answered; `refused`: why nothing would happen."""

    assumptions: list[str]
    reply: dict[str, Any] = {}
    refused: dict[str, Any] | None = None


async def node_loss(on: Rehearsal, node_id: str) -> Act:
    """Silent, its SSH server failing too, and no guard in the way: the verdict. Raises `Rejected`, `Unavailable`."""
    node = _known(on, "node", node_id, on.lend_node(node_id))
    assert isinstance(node, Node)
    last_us = max(on.pool.last_seen_us(node_id), node.last_heartbeat_us or 0)
    on.seen.nodes[node_id].silent = True
    on.outcomes.lost.add(node_id)
    engine, enough = on.stage.engine, on.stage.engine.context.limits("min_failed_probes")
    if not node.silence.last_us:
        engine.tell("node", node_id, Envelope(Silent(last_us), priority=True))
        await on.play()
    silent = engine.store.get("node", node_id)
    if isinstance(silent, Node) and silent.silence.last_us:  # what its probes came to is assumed, not played
        on.stage.lend("node", node_id, replace(silent, silence=replace(silent.silence, failed=enough)))
    engine.tell("node", node_id, Envelope(Verdict(last_us), priority=True))
    await on.play()
    act = Act([
        "the last heartbeat was the last one; the node's SSH server fails every probe; no guard holds the verdict",
        "the node never returns: what is owed on it stays owed, and no step on it gives an outcome",
        STEPS_END_WELL.replace("every step", "every other step"), NOTHING_ELSE,
    ])  # fmt: skip
    after = engine.store.get("node", node_id)
    if node.state == LOST or after is None or after.state != LOST:
        paused = " and paused until its case is resolved" if node.paused else ""
        text = f"a node that is {node.state}{paused} is not declared lost"
        act.refused = Rejected("illegal_transition", text, state=node.state).body()
    return act


async def command(on: Rehearsal, kind: str, identifier: str, subject: str, message: Any, actor: str) -> Act:
    """Any command, of which the actor gets that message; and all that follows. Raises `Rejected`, `Unavailable`."""
    on.lend_around(kind, identifier)
    if account_id := getattr(message, "account_id", None):
        on.lend_around("account", account_id)
    if isinstance(message, CreateAccount):
        on.lend_payments(identifier, message.stripe_customer_id or "")
    act, answered = Act([STEPS_END_WELL, NOTHING_ELSE]), []
    now_us = on.stage.now_us
    info = CommandInfo("", "", "", subject, "", "", "", "", now_us, operator=actor.partition(":")[2])

    def reply(data: Mapping[str, Any] | None, error: Rejected | None) -> None:
        answered.append((data, error))

    on.stage.engine.tell(kind, identifier, Envelope(message, actor=actor, command=info, reply=reply))
    await on.play()
    data, error = answered[0]
    if error is not None and error.code in ("not_found", "internal"):
        raise error
    act.refused = error.body() if error is not None else None
    act.reply = {name: value for name, value in (data or {}).items() if name != kind}
    return act


def _known(on: Rehearsal, kind: str, identifier: str, state: Any) -> Any:
    if state is None:
        raise Rejected("not_found", f"there is no {kind} {identifier!r}", field=f"{kind}_id")
    return state
