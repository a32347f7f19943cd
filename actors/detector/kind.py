"""The detector's actor: holds of verdicts as cases, the control plane's own events, and an operator's word on them.

The guards (`supervisors.guards`) count; what they find is made durable here. It judges no node: a node does.
"""

from actors.between import LossConfirmed
from actors.detector.messages import MOST_NODES, ConfirmLoss, DetectorStarts, MassOver, MassSilence
from actors.facts import facts
from amends.delivery.streams import ControlPlane
from amends.domain.kinds import ActorKind, ActorState
from amends.turn.cases import close_case, open_case
from amends.turn.decision import EVENTS, Decision

CASE = "mass_offline"


class DetectorState(ActorState, frozen=True, kw_only=True):
    """`holds`: the domains in which no verdict is passed now."""

    holds: tuple[str, ...] = ()


def _starts(s: DetectorState | None, m: DetectorStarts, d: Decision) -> None:
    if s is None:
        d.create(DetectorState(state="watching"))


def _held(s: DetectorState, m: MassSilence, d: Decision) -> None:
    if m.domain in s.holds:
        return
    found = {"domain": m.domain, "silent": m.silent, "nodes": m.total}
    d.set(holds=(*s.holds, m.domain), owing=True)
    d.audit("detector.held", f"domain:{m.domain}", details=found)
    open_case(d, CASE, f"domain:{m.domain}", evidence=found)
    d.tell("stream", EVENTS, ControlPlane("degraded", CASE, found))


def _over(s: DetectorState, m: MassOver, d: Decision) -> None:
    if m.domain not in s.holds:
        return
    holds = tuple(domain for domain in s.holds if domain != m.domain)
    d.set(holds=holds, owing=bool(holds))
    d.audit("detector.released", f"domain:{m.domain}")
    close_case(d, CASE, "so many are not silent any more", f"domain:{m.domain}")
    d.tell("stream", EVENTS, ControlPlane("recovered", CASE, {"domain": m.domain}))


def _confirm(s: DetectorState, m: ConfirmLoss, d: Decision) -> None:
    """Those held now, not later ones: each is told durably, in this transaction."""
    if m.domain is None and m.node_ids is None:
        d.refuse("invalid_request", "name a domain or node_ids: not all of the fleet at once", field="domain")
    held = facts(d).held_nodes(m.domain, m.node_ids)[:MOST_NODES]
    d.audit("detector.confirm", reason=m.reason, details={"domain": m.domain, "nodes": len(held)})
    for node_id in held:
        d.tell("node", node_id, LossConfirmed(m.reason))
    d.reply_entity = False
    d.reply(confirmed=len(held), nodes=held[:500])


DETECTOR = ActorKind(
    name="detector",
    state_type=DetectorState,
    states={"watching": "forever"},
    transitions={("", "watching"): "the detector starts"},
    handlers={DetectorStarts: _starts, MassSilence: _held, MassOver: _over, ConfirmLoss: _confirm},
    creates=frozenset({DetectorStarts}),
    events=False,
)
