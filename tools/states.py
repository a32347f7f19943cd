"""The automata of all actor kinds, drawn from their own tables: a generated part of docs/reference/states.md.

`./run pages` writes it (tools/reference.py); tests/docs/test_states.py holds the drawing to the tables.
"""

from amends.domain.domain import Domain
from amends.domain.kinds import ActorKind
from supervisors.rental import RENTAL

# How the table of a kind says what ends a stay (see `ActorKind`) → how the page says it.
STAYS = {"end": "nothing: it is the end", "rest": "no deadline: it may stay", "forever": "nothing: it has no exit"}


def label(trigger: str) -> str:
    """A trigger as Mermaid takes it: a colon or a semicolon would end the label."""
    return trigger.replace(";", ",").replace(":", " ")


def diagram(kind: ActorKind) -> list[str]:
    """The automaton as a Mermaid state diagram."""
    lines = ["```mermaid", "stateDiagram-v2"]
    for (source, target), trigger in kind.transitions.items():
        lines.append(f"    {source or '[*]'} --> {target}: {label(trigger)}")
    lines += [f"    {state} --> [*]" for state, stay in kind.states.items() if stay == "end"]
    return [*lines, "```"]


def section(kind: ActorKind) -> list[str]:
    """Heading, diagram and the table of states."""
    events = "one event per transition" if kind.events else "no events"
    lines = [f"### {kind.name}", "", f"Table `{kind.table}`, {events}.", "", *diagram(kind), ""]
    lines += ["| state | what ends a stay in it |", "|---|---|"]
    lines += [f"| `{state}` | {STAYS.get(stay, stay)} |" for state, stay in kind.states.items()]
    return [*lines, ""]


def sections(domain: Domain = RENTAL) -> list[str]:
    """The automata of all kinds, line by line."""
    return [line for kind in domain.kinds for line in section(kind)][:-1]
