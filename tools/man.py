"""docs/man/amends.1: the manual page of `amends`, from the same parser that its help comes from (`./run pages`).

Written by hand as roff and not by argparse's own formatting, which differs from one Python to the next.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from adapters.cli import arguments
from adapters.cli.completion import places
from adapters.cli.verbs import LOCAL, all_verbs
from amends.domain.domain import requests_of
from supervisors.rental import RENTAL

FILE = Path(__file__).parents[1] / "docs" / "man" / "amends.1"
COMMON = 10  # an option of so many verbs is described once
HEAD = r""".TH AMENDS 1 "" "Amends" "User Commands"
.SH NAME
amends \- rent machines, and make amends when they fail
.SH SYNOPSIS
.B amends
[\fB\-\-json\fR] \fIVERB\fR ...
.SH DESCRIPTION
Verbs that start something run in this process; all others ask a runtime over NATS, which they find by what it has
written into its state directory, or by \fB\-\-nats\fR and \fB\-\-token\fR.
.PP
A verb that changes something is sent with a random idempotency key. After a time\-out send it again with the
\fB\-\-key\fR that it printed: what was done already is not done twice."""
TAIL = r""".SH EXIT STATUS
0 done, 1 refused, 2 usage, 3 unreachable.
.SH ENVIRONMENT
.TP
.B AMENDS_TOKEN
the token that a verb is sent with
.TP
.B AMENDS_NATS_SERVERS
where NATS is
.TP
.B AMENDS_STATE_DIR
the state directory of the local runtime
.SH FILES
.TP
.I ./.amends/endpoints.json
what the local runtime has written: where it is, and its operator's token
.SH SEE ALSO
docs/operations.md, docs/reference, docs/runbooks
"""
Options = list[argparse.Action]


def roff(text: str) -> str:
    """A text as roff takes it."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return "\\&" + plain if plain.startswith((".", "'")) else plain


def typed(action: argparse.Action) -> str:
    """An option or argument as it is typed."""
    value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if not action.option_strings:
        return f"\\fI{roff(value)}\\fR" if action.nargs != "?" else f"[\\fI{roff(value)}\\fR]"
    name = f"\\fB{roff(action.option_strings[-1])}\\fR"
    if action.nargs == 0:
        return name
    return f"{name} [\\fI{roff(value)}\\fR]" if action.nargs == "?" else f"{name} \\fI{roff(value)}\\fR"


def described(actions: Options) -> Iterator[str]:
    """A paragraph each."""
    for action in actions:
        yield f".TP\n{typed(action)}\n{roff(action.help or '')}"


def page() -> str:
    """The page as it should be."""
    parser = arguments.parser([verb.words for verb in LOCAL], all_verbs(requests_of((RENTAL,)).values()))
    found = [
        (f"amends {place.words}", place.help, [each for each in place.actions if each.dest != "help"])
        for place in places(parser) if not place.verbs
    ]  # fmt: skip
    times = Counter((typed(each), each.help) for _, _, actions in found for each in actions if each.option_strings)
    common = {key for key, count in times.items() if count >= COMMON}
    shared: dict[tuple[str, str | None], argparse.Action] = {}
    parts = [HEAD, ".SH VERBS"]
    for words, text, actions in found:
        own = [each for each in actions if (typed(each), each.help) not in common]
        shared |= {(typed(each), each.help): each for each in actions if each not in own}
        asked = [typed(each) if each.required or not each.option_strings else f"[{typed(each)}]" for each in own]
        more = [] if len(own) == len(actions) else ["[\\fIOPTIONS\\fR]"]
        parts += [f".SS {roff(words)} {' '.join([*asked, *more])}".rstrip(), roff(text), *described(own)]
    parts += [".SH OPTIONS", "Of many verbs; each has those of its kind.", *described(list(shared.values()))]
    return "\n".join([*parts, TAIL])


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(page(), encoding="utf-8")
    print(f"{FILE.name} written")
