"""What the methods of the client say of themselves: docstrings for tools/client.py, in lines that fit."""

import re
import textwrap
from collections.abc import Mapping
from typing import Final

from amends.domain.api import Command
from amends.runtime.requests import Endpoint

ROLES: Final = {
    "caller": "callers and operators", "operator": "operators", "viewer": "operators and viewers",
    "reader": "callers, operators, viewers",
}  # fmt: skip
NOTES: Final = {
    "cmd.allocation.request": "Either `rate_uminor_per_hour` (callers of all accounts) or `price`.",
    "qry.account.statement": "At most 1000 entries: with a `cursor` in the answer, ask again with it.",
    "ops.ledger.verify": "With a `cursor` in the answer, ask again with it.",
    "ops.policy.backtest": "With a `cursor` in the answer, ask again with it.",
}
QUESTIONS: Final = {
    "qry.account.statement": "what an account was charged and credited",
    "qry.ledger_entry.explain": "how an entry of the ledger came about",
    "ops.tree.show": "the live supervision tree",
    "ops.matrix.show": "the rows of the matrix with counts and outcomes",
    "ops.audit.verify": "check the chain of the audit log",
    "ops.case.show": "one case and its runbook",
    "ops.policy.show": "the credit policy in force, or one that was, by its hash",
    "ops.whatif.node_loss": "what the loss of a node would undo, credit and tell; nothing is written",
    "ops.whatif.command": "what a command would come to, or why it is refused; nothing is written",
    "ops.whatif.force_release": "what a forced release would undo, credit and tell; nothing is written",
    "ops.whatif.node_retire": "what retiring a node would give up, or why it is refused; nothing is written",
    "ops.policy.evaluate": "what the policy makes of an end; nothing is written",
    "ops.policy.backtest": "what another policy would have charged and credited",
    "ops.trace.verify": "compare compensation records with their spans",
    "ops.trace.export": "the spans of the newest recovery runs, or of one trace, as Jaeger writes them",
    "ops.ledger.verify": "reckon every meter, payment and balance anew, and compare",
}
COMMAND_LINE: Final = re.compile(r"(?:: a line or @FILE|; or --price)$")  # what only the command line takes


def summary(endpoint: Endpoint, command: Command | None) -> str:
    """What it does and for whom, in one or two sentences. KeyError for a question that has no words yet."""
    says = command.help if command else QUESTIONS[endpoint.subject]
    who = 'callers of `"*"` and operators' if endpoint.trusted else ROLES[endpoint.role]
    return f"{says[0].upper()}{says[1:]} (for {who})."


def wrapped(says: str, helps: Mapping[str, str], note: str = "") -> str:
    """A docstring's text: the sentence, then its fields and the note in lines of the width of the house."""
    told = "; ".join(f"`{name}`: {COMMAND_LINE.sub('', text)}" for name, text in helps.items() if name != "reason")
    more = " ".join(part for part in (f"{told}." if told else "", note) if part)
    if not more:
        return says
    lines = textwrap.wrap(more, 112, break_on_hyphens=False)
    return "\n\n        ".join([says, "\n        ".join(lines)]) + "\n        "
