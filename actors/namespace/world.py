"""A namespace beside the database: grants at its provider that nobody wants, and those that are gone there.

Only where none is being given or taken back, and none was for a while. What is wanted is read before the provider is
asked and again when it has answered; a provider that cannot list its grants is not compared. Nothing is revoked.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from actors.differences import Difference, LookAround, answered, quiet, settle
from actors.facts import facts
from actors.namespace.state import Namespace
from amends.turn.decision import Decision
from amends.turn.messages import StepDone

STEP = "provider.grants"
SETTLED = ("granted", "drift")
COMMANDS = ("ops.case.resolve",)
Wanted = Mapping[str, Sequence[str]]


def look(s: Namespace, m: LookAround, d: Decision) -> None:
    """Ask its provider which grants there are."""
    if s.look.step or not _may_be_judged(d, d.now_us):
        return
    args = {"provider_id": s.provider_id, "namespace_id": d.id, "asked_us": d.now_us, "wanted": _wanted(d)}
    d.part("look", step=d.step(STEP, f"provider:{s.provider_id}/grants:{d.id}", args))


def seen(s: Namespace, m: StepDone, d: Decision) -> None:
    """It has answered, or it has not, or it cannot list them: then nobody knows more than before."""
    if not answered(d, m) or not _may_be_judged(d, m.args["asked_us"]):
        return
    found: list[dict[str, Any]] = m.outcome.data["grants"]
    whole = m.outcome.data["whole"]
    differences = list(_compared(s, d.id, found, m.args["wanted"], _wanted(d), whole=whole))
    settle(d, differences, seen_us=m.ended_us, whole=whole, commands=COMMANDS)


def _may_be_judged(d: Decision, asked_us: int) -> bool:
    settled = all(state in SETTLED for _, _, state in facts(d).grants_of(d.id))
    return settled and quiet(facts(d).touched_us(d.ref), asked_us, d.limits.us("world_grace_ms"))


def _wanted(d: Decision) -> dict[str, list[str]]:
    """By what the database wants now: what may be there, and what has to be."""
    grants = facts(d).grants_of(d.id)
    return {
        "grants": [grant_id for grant_id, _, _ in grants],
        "granted": [grant_id for grant_id, _, state in grants if state == "granted"],
    }


def _compared(
    s: Namespace, namespace_id: str, found: Sequence[Mapping[str, Any]], before: Wanted, now: Wanted, *, whole: bool
) -> Iterator[Difference]:
    wanted = {*before["grants"], *now["grants"]}
    names = {"namespace_id": namespace_id, "provider_id": s.provider_id, "found": "grant"}
    for each in found:
        if each["grant_id"] not in wanted:
            of_node = f"at the provider, for the node {each['node_id']}, {each['mode']}"
            yield _of(names, each["grant_id"], of_node, "no attachment wants it, and none has drifted so")
    must = {*before["granted"]} & {*now["granted"]} if whole else set[str]()
    for grant_id in sorted(must - {each["grant_id"] for each in found}):
        yield _of(names, grant_id, "not at the provider", "it stands, and an attachment relies on it")


def _of(names: Mapping[str, str], grant_id: str, where: str, database: str) -> Difference:
    target = f"namespace:{names['namespace_id']}/grant:{grant_id}"
    return Difference(target, where, database, {**names, "name": grant_id})
