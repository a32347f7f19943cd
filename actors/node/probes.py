"""Probes of a node's SSH server: whether one is under way, and how many in a row have failed."""

from actors.node.state import Node
from amends.turn.decision import Decision

PROBE = "ssh.probe"


def probe(d: Decision) -> None:
    """Try the node's SSH server, unless that is under way."""
    s: Node = d.state
    if not s.probes.step:
        step = d.step(PROBE, f"node:{d.id}", {"node_id": d.id}, attempt=s.probes.tries + 1)
        d.part("probes", step=step)


def ended(d: Decision) -> None:
    """The one that was under way says no more, or has said it."""
    d.part("probes", step="")


def failed(d: Decision, tries: int, first_us: int = 0) -> None:
    """So many in a row have failed by now, the first of them then."""
    d.part("probes", tries=tries, failed_us=first_us)


def passed(d: Decision) -> None:
    """The address is proven, or does not count any more: none has failed."""
    d.part("probes", tries=0, failed_us=0, unproven=False)


def moved(d: Decision, *, unproven: bool) -> None:
    """Another machine: what was asked of the old one says nothing about it."""
    d.part("probes", step="", tries=0, unproven=unproven)
