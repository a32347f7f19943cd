"""The checks at start: a domain whose tables do not hold together is refused, with a message that names the gap."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec

from msgspec import Struct

from amends.domain.api import fields_of
from amends.domain.domain import Domain, requests_of
from amends.domain.kinds import ActorKind
from amends.domain.matrix import Matrix, MatrixRow
from amends.domain.steps import StepSpec
from amends.domain.versions import Message
from amends.values.errors import BadDomain
from amends.values.tables import table_of


def check_domains(domains: Sequence[Domain], has_runbook: Callable[[str], bool]) -> None:
    """Raise `BadDomain` with every fault found, one a line."""
    faults = [fault for domain in domains for fault in _faults(domain, has_runbook)]
    names = [kind.name for domain in domains for kind in domain.kinds]
    faults += [f"actor kind {name!r} is declared twice" for name in set(names) if names.count(name) > 1]
    if faults:
        raise BadDomain("the start is refused:\n  " + "\n  ".join(sorted(faults)))


def _faults(domain: Domain, has_runbook: Callable[[str], bool]) -> Iterable[str]:
    for kind in domain.kinds:
        yield from _kind_faults(kind)
    yield from _step_faults(domain)
    yield from _command_faults(domain)
    for name, shape in _stored_shapes(domain):
        if "v" in shape.__struct_fields__:
            yield f"{name} has a field 'v', which says the version of what is stored"
    for row_type in domain.rows:
        if not (hasattr(row_type, "table") and table_of(row_type).facets):
            yield f"row {row_type.__name__!r} declares no table with facets: the digest chain would not hold it"
    known = {case.kind for case in domain.cases}
    for case in domain.cases:
        if not has_runbook(case.runbook):
            yield f"case {case.kind!r} has no runbook: {case.runbook} is missing"
        if not case.commands:
            yield f"case {case.kind!r} names no command that may settle it"
    for row in domain.matrix.rows:
        for case_kind in row.cases:
            if row.status == "built" and case_kind not in known:
                yield f"row {row.id} opens the case {case_kind!r}, which the domain {domain.name!r} does not declare"


def _stored_shapes(domain: Domain) -> Iterable[tuple[str, type[Struct]]]:
    for kind in domain.kinds:
        for handled in kind.handlers:
            if issubclass(handled, Message):
                yield f"message {handled.__name__!r}", handled
    for step in domain.steps:
        if step.args is not None:
            yield f"step {step.name!r}", step.args


def _kind_faults(kind: ActorKind) -> Iterable[str]:
    sources = {source for source, _ in kind.transitions}
    targets = {target for _, target in kind.transitions}
    for state in sorted((sources | targets) - {""} - set(kind.states)):
        yield f"{kind.name}: a transition names the state {state!r}, which is not declared"
    if "" not in sources:
        yield f"{kind.name}: no transition creates it (from '')"
    for message, legal in kind.legal.items():
        for state in legal.states:
            if state not in kind.states:
                yield f"{kind.name}: {message.__name__} is legal in {state!r}, which is no state"
        if message not in kind.handlers:
            yield f"{kind.name}: {message.__name__} is legal, and has no handler"
    for state, bound in kind.states.items():
        if bound == "end" and state in sources:
            yield f"{kind.name}: the terminal state {state!r} has an exit"
        if bound not in ("end", "forever") and state not in sources:
            yield f"{kind.name}: the state {state!r} has no exit"
        if bound == "":
            yield f"{kind.name}: the state {state!r} has no deadline"
        if state not in targets:
            yield f"{kind.name}: the state {state!r} cannot be reached"


def _command_faults(domain: Domain) -> Iterable[str]:
    kinds = {kind.name for kind in domain.kinds}
    for subject, request in requests_of((domain,)).items():
        command = request.command
        assert command is not None
        said = [name for name in ("by", "one", "mints", "found") if getattr(command, name)]
        if len(said) != 1 and said != ["mints", "found"]:  # found: what the new one is told of
            yield f"command {subject} says its actor by {' and '.join(said) or 'nothing'}: one of by, one, mints, found"
        if subject.startswith("ops.") != (command.role == "operator"):
            yield f"command {subject} is for the role {command.role}: ops.* is for operators, cmd.* for callers"
        if command.of not in kinds and not command.found:
            yield f"command {subject} is for a {command.of!r}, which is no kind of actor here"
        for field in (command.by, command.account):
            if field and field not in request.__struct_fields__:
                yield f"command {subject} names the field {field!r}, which its request has not"
        try:
            fields_of(request)
        except BadDomain as fault:
            yield f"command {subject}: {fault}"


def _step_faults(domain: Domain) -> Iterable[str]:
    specs = {step.name: step for step in domain.steps}
    for step in domain.steps:
        covering = [row for row in domain.matrix.rows if step.name in row.covers]
        if step.effect and len(covering) != 1:
            found = ", ".join(row.id for row in covering) or "none"
            yield f"step {step.name!r} needs exactly one matrix row for its failures; it has: {found}"
        for row in covering:
            for kind in step.failures:
                if step.effect and kind not in row.failure_types:
                    yield f"step {step.name!r} can fail with {kind!r}, which row {row.id} does not list"
        if step.effect and not step.undo and not step.no_undo:
            yield f"step {step.name!r} has an effect but neither an undo nor a reason for none"
        for name in (step.undo, *step.after):
            if name and name not in specs:
                yield f"step {step.name!r} names {name!r} for its undo, which is not a step"
        if step.external and not step.adapter:
            yield f"step {step.name!r} names no adapter"
    for row in domain.matrix.rows:
        if row.status == "built":
            yield from _row_faults(row, specs)


def _row_faults(row: MatrixRow, steps: Mapping[str, StepSpec]) -> Iterable[str]:
    for name in row.covers:
        if name not in steps:
            yield f"row {row.id} covers the step {name!r}, which is not declared"
    if row.exhausts and row.exhausts not in row.cases:
        yield f"row {row.id} ends in the case {row.exhausts!r}, which it does not list"
    if not row.code or find_spec(row.code) is None:
        yield f"row {row.id} names the code {row.code!r}, and there is no such module"


def join(domains: Sequence[Domain]) -> Matrix:
    """One matrix of all domains' rows; a row id or a step in two of them is refused."""
    rows = tuple(row for domain in domains for row in domain.matrix.rows)
    ids = [row.id for row in rows]
    twice = sorted({row_id for row_id in ids if ids.count(row_id) > 1})
    if twice:
        raise BadDomain(f"the start is refused: matrix rows declared twice: {', '.join(twice)}")
    return Matrix("+".join(domain.matrix.version for domain in domains), rows)
