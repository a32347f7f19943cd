"""A node beside the database: users and mounts on it that nobody wants, and those that are wanted and not there.

Only of a node in service that is heard, where nothing is under way and nothing was for a while: what is being made or
taken away right now is no difference. What the database wants is read before the agent is asked and again when it has
answered; a thing differs only if it does from both. Nothing is removed: the way out of quarantine does (`reconcile`).
"""

from collections.abc import Iterator, Mapping, Sequence

from actors.allocation.state import user_of
from actors.differences import LISTED, Difference, LookAround, answered, quiet, settle
from actors.facts import facts
from actors.node.inventory import NAMES
from actors.node.state import Node
from amends.turn.decision import Decision
from amends.turn.messages import StepDone

STEP = "agent.inventory"
LOOKED_AT = ("ready", "draining")
SETTLED = ("attached", "detach_failed")  # of an attachment: nothing is under way
COMMANDS = ("ops.node.quarantine", "ops.case.resolve")
MAY = ("users", "mounts")  # may be there
MUST = {"users": "rented", "mounts": "attached"}  # has to be there
UNWANTED = {"user": "no rental and no debt of this node has it", "mount": "no attachment of this node has it"}
MISSING = {"user": "its rental is active on this node", "mount": "it is attached to this node"}
FOREIGN = "no attachment of this node is mounted there"
Wanted = Mapping[str, Sequence[str]]


def look(s: Node, m: LookAround, d: Decision) -> None:
    """Ask its agent what is on it."""
    if s.look.step or not _may_be_judged(s, d, d.now_us):
        return
    args = {"node_id": d.id, "node_epoch": s.epoch, "asked_us": d.now_us, "wanted": _wanted(d)}
    d.part("look", step=d.step(STEP, f"agent:{d.id}", args))


def seen(s: Node, m: StepDone, d: Decision) -> None:
    """It has answered, or it has not, or it does not know that question: then nobody knows more than before."""
    args = m.args
    if not answered(d, m) or args["node_epoch"] != s.epoch or not _may_be_judged(s, d, args["asked_us"]):
        return
    found = m.outcome.data
    whole = all(len(found[kind]) < LISTED for kind in (*MAY, "foreign"))
    differences = list(_compared(d.id, found, args["wanted"], _wanted(d), whole=whole))
    settle(d, differences, seen_us=m.ended_us, whole=whole, commands=COMMANDS)


def _may_be_judged(s: Node, d: Decision, asked_us: int) -> bool:
    ask = facts(d)
    if s.state not in LOOKED_AT or not ask.is_heard(d.id) or s.restored < ask.restored:
        return False
    if s.silence.last_us or s.reboot.boot_id or not quiet(ask.touched_us(d.ref), asked_us, _grace_us(d)):
        return False
    held = ask.assignment_of(d.id)
    rental = ask.allocation(held[0]) if held is not None else None
    if held is not None and (rental is None or rental.state != "active"):
        return False
    return all(state in SETTLED for _, _, state in ask.mounts_on(d.id))


def _grace_us(d: Decision) -> int:
    return d.limits.us("world_grace_ms")


def _wanted(d: Decision) -> dict[str, list[str]]:
    """By what the database wants now: what may be there, and what has to be."""
    ask = facts(d)
    held = ask.assignment_of(d.id)
    may_stay = sorted({*ask.expected_mounts(d.id), *ask.owed_mounts(d.id)})
    return {
        "users": ask.expected_users(d.id),
        "mounts": may_stay,
        "rented": [user_of(held[0])] if held is not None and held[1] == "active" else [],
        "attached": [name for name, _, state in ask.mounts_on(d.id) if state == "attached" and name in may_stay],
    }


def _compared(node_id: str, found: Wanted, before: Wanted, now: Wanted, *, whole: bool) -> Iterator[Difference]:
    for kinds in MAY:
        kind = kinds.removesuffix("s")
        wanted = {*before[kinds], *now[kinds]}
        for name in found[kinds]:
            if NAMES[kind].fullmatch(name) and name not in wanted:
                yield _of(node_id, kind, name, "on the node", UNWANTED[kind])
        must = {*before[MUST[kinds]]} & {*now[MUST[kinds]]} if whole else set[str]()
        for name in sorted(must - {*found[kinds]}):
            yield _of(node_id, kind, name, "not on the node", MISSING[kind])
    for path in found["foreign"]:
        yield _of(node_id, "foreign", path, "mounted by somebody else than the agent", FOREIGN)


def _of(node_id: str, kind: str, name: str, where: str, database: str) -> Difference:
    return Difference(
        f"node:{node_id}/{kind}:{name}", where, database, {"node_id": node_id, "found": kind, "name": name}
    )
