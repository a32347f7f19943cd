"""Write the generated parts of docs/reference: subjects, matrix, timing, automata, views, from the tables of the code.

`python -m tools.reference` (`./run pages`) writes what stands between `<!-- generated: NAME -->` and
`<!-- /generated -->`; the rest of a page is written by hand. tests/docs/test_reference.py compares.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from msgspec import inspect

from adapters.postgres.filters import FILTERS
from adapters.postgres.reading import ENTITIES
from amends.domain.matrix import MatrixRow
from amends.runtime.requests import Endpoint
from amends.values.errors import CODES, RETRYABLE
from supervisors.api.endpoints import ById
from supervisors.matrix import CASES, MATRIX
from supervisors.rental import STEPS
from supervisors.simulation.stories import STORIES
from supervisors.timing import TIMING
from tools import states
from tools.asyncapi import endpoints
from tools.reference_examples import NOTES, example
from tools.views import views

FOLDER: Final = Path(__file__).parents[1] / "docs" / "reference"
BLOCK: Final = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)
WIDTH: Final = 118
PLACES: Final = {  # part → its page
    "commands": "api-commands.md", "storage": "api-storage.md", "operators": "api-operators.md",
    "inspection": "api-inspection.md",
    "queries": "api-queries.md", "records": "api-records.md",
}  # fmt: skip
CASE_KINDS: Final = frozenset(case.kind for case in CASES)
RECORDS: Final = frozenset(
    ("failure", "recovery_run", "recovery_action", "compensation", "audit_log", "ops_case", "payment", "stripe_event")
)  # fmt: skip
STORAGE: Final = frozenset(("attachment", "namespace", "provider", "provider_grant"))
ROLES: Final = {
    "caller": "callers and operators", "operator": "operators", "viewer": "operators and viewers",
    "reader": "callers, operators, viewers", "signed": "whoever has Stripe's signature",
}  # fmt: skip


def askers(endpoint: Endpoint) -> str:
    """Who may ask, in words."""
    return 'callers of `"*"` and operators' if endpoint.trusted else ROLES[endpoint.role]


def table(head: str, rows: Iterator[str] | list[str]) -> list[str]:
    """A table of Markdown from its head and rows, each already with its inner bars."""
    return [f"| {head} |", f"|{'---|' * (head.count(' | ') + 1)}", *(f"| {row} |" for row in rows)]


def code(text: str) -> str:
    """Text as code in a table's cell."""
    return "`" + text.replace("|", r"\|") + "`"


def listed(names: Any) -> str:
    """Names as code, or a dash."""
    return ", ".join(f"`{name}`" for name in names) or "–"


# --- subjects ----------------------------------------------------------------------------------------


def described(kind: Any) -> str:  # noqa: PLR0911 - a word for each kind of type
    """A field's type and bounds in words."""
    match kind:
        case inspect.Metadata():
            return described(kind.type)
        case inspect.UnionType():
            (one,) = (one for one in kind.types if not isinstance(one, inspect.NoneType))
            return f"{described(one)}; or null"
        case inspect.AnyType():
            return "anything"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return f"whole number, {kind.ge} to {kind.le}"
        case inspect.StrType():
            return _text(kind)
        case inspect.LiteralType():
            return " or ".join(code(str(one)) for one in kind.values)
        case inspect.ListType():
            most = f" of at most {kind.max_length}" if kind.max_length is not None else ""
            return f"list{most}: {described(kind.item_type)}"
        case inspect.DictType():
            most = f" of at most {kind.max_length}" if kind.max_length is not None else ""
            return f"object{most}: keys {described(kind.key_type)}; values {described(kind.value_type)}"
        case _:
            raise TypeError(f"a field of {kind!r} has no words yet: add them to tools/reference.py")


def _text(kind: inspect.StrType) -> str:
    size = ""
    if kind.max_length is not None:
        size = f" of {kind.min_length or 0} to {kind.max_length} characters"
    if not kind.pattern:
        return f"text{size}"
    pattern = kind.pattern.replace(r"$(?!\n)", "$")  # how Python and ECMA-262 both say what `$` says here
    return f"text{size}, {code(pattern)}"


def fields(kind: inspect.StructType, inside: str = "", *, may_miss: bool = False) -> Iterator[str]:
    """Rows of the table of a request's fields; an object's own fields follow it, under its name."""
    for field in kind.fields:
        name, inner = inside + field.encode_name, field.type
        required = "no" if not field.required else f"with `{inside[:-1]}`" if may_miss else "yes"
        if isinstance(inner, inspect.UnionType):
            inner = next((one for one in inner.types if isinstance(one, inspect.StructType)), inner)
        if isinstance(inner, inspect.StructType):
            yield f"`{name}` | {required} | object"
            yield from fields(inner, f"{name}.", may_miss=not field.required)
        else:
            yield f"`{name}` | {required} | {described(inner)}"


def compact(value: Any, indent: int = 0) -> str:
    """JSON in as few lines as fit the page."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + indent <= WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {compact(one, indent + 2)}" for key, one in value.items()]
    else:
        parts = [compact(one, indent + 2) for one in value]
    lines, line = [], pad
    for number, part in enumerate(parts):
        piece = part + ("," if number + 1 < len(parts) else "")
        if "\n" in piece or len(line) + len(piece) + 1 > WIDTH:
            if line.strip():
                lines.append(line.rstrip())
            line = pad
        line += piece + " "
        if "\n" in piece:
            lines.append(line.rstrip())
            line = pad
    if line.strip():
        lines.append(line.rstrip())
    opened, closed = ("{", "}") if isinstance(value, dict) else ("[", "]")
    return "\n".join([opened, *lines, " " * indent + closed])


def subject(endpoint: Endpoint) -> list[str]:
    """The section of one subject."""
    kind = "a question" if endpoint.answer is not None else "a change"
    lines = [f"### {endpoint.subject}", "", f"For {askers(endpoint)}; {kind}."]
    if endpoint.subject in NOTES:
        lines.append(NOTES[endpoint.subject])
    if endpoint.request is ById:
        lines.append("Fields: `id`, text of 1 to 255 characters.")
    elif isinstance(endpoint.request, type):
        known = inspect.type_info(endpoint.request)
        assert isinstance(known, inspect.StructType)
        rows = list(fields(known))
        lines += ["", *table("field | required | type and bounds", rows)] if rows else ["No fields."]
    else:
        lines.append(
            "Fields: filters, `limit` (1 to 500, default 100), `cursor`, `order` (`oldest` or `newest`), `id_prefix`."
        )
        entity = "ops_case" if endpoint.subject == "ops.case.list" else endpoint.subject.split(".")[1]
        lines.append(f"Filters: {FILTERS[entity].words('`')}.")
    asked, answered = example(endpoint.subject)
    return [*lines, "", "```json", compact(asked), "```", "```json", compact(answered), "```", ""]


def part_of(endpoint: Endpoint) -> str:
    """In which part a subject stands: operators' questions and those of records have pages of their own."""
    family, entity, *_ = endpoint.subject.split(".")
    match family:
        case "cmd" | "ingress":
            return "commands"
        case "ops":
            changes = "storage" if entity in STORAGE else "operators"
            return changes if endpoint.answer is None else "inspection"
        case _:
            if entity in STORAGE:
                return "storage"
            return "records" if entity in RECORDS else "queries"


def _subjects(part: str) -> Callable[[], list[str]]:
    def sections() -> list[str]:
        chosen = [one for one in endpoints() if part_of(one) == part]
        return [line for endpoint in chosen for line in subject(endpoint)][:-1]

    return sections


def index() -> list[str]:
    """All subjects with who may use them."""
    rows = []
    for endpoint in endpoints():
        subject_of_rows = endpoint.subject.startswith("qry.") and endpoint.subject.endswith((".get", ".list"))
        if not subject_of_rows:
            anchor = endpoint.subject.replace(".", "")
            what = "change" if endpoint.answer is None else "question"
            rows.append(f"[`{endpoint.subject}`]({PLACES[part_of(endpoint)]}#{anchor}) | {askers(endpoint)} | {what}")
    answered = list(ENTITIES)
    rows.append(f"`qry.<entity>.get`, `qry.<entity>.list` of {listed(answered)} | {ROLES['reader']} | question")
    return table("subject | for | kind", rows)


def errors() -> list[str]:
    """Error codes with their numbers."""
    rows = [f"{http} | `{name}` | {'yes' if http in RETRYABLE else 'no'}" for name, http in CODES.items()]
    return table("http | code | retryable", rows)


def cases() -> list[str]:
    """Operator cases with their commands."""
    return table("kind | commands that may settle it", [f"`{one.kind}` | {listed(one.commands)}" for one in CASES])


# --- matrix ------------------------------------------------------------------------------------------


def undo_of(name: str) -> str:
    """What undoes a step that a row covers, in words."""
    for step in STEPS:
        if step.name == name:
            return f"`{step.undo}`" if step.undo else f"none: {step.no_undo}" if step.no_undo else "no effect"
    return "not built"


def module_file(module: str) -> str:
    """The file of a module of ours."""
    path = f"{module.replace('.', '/')}.py"
    return f"src/{path}" if module.startswith("amends.") else path


def tests_of(row_id: str) -> list[str]:
    """The tests of a row on real parts, and its story in the simulated world."""
    root = Path(__file__).parents[1]
    real = sorted(path.name for path in (root / "tests" / "acceptance").glob(f"test_{row_id.lower()}_*.py"))
    told = ["supervisors/simulation/stories.py"] if any(story.row == row_id for story in STORIES) else []
    return [*(f"tests/acceptance/{name}" for name in real), *told]


def matrix_row(row: MatrixRow) -> list[str]:
    """The section of one row."""
    steps = "; ".join(f"`{name}` (undo: {undo_of(name)})" for name in row.covers)
    cells = {
        "status": f"**{row.status}**", "entity": f"`{row.entity}`", "owner": row.owner,
        "failure point": row.failure_point, "detection": row.detection, "action": row.action, "steps": steps,
        "failure types": listed(row.failure_types), "records": listed(row.compensations),
        "records of what is owed": listed(row.owed), "budget": listed(row.budget), "billing": row.billing,
        "may book": listed(row.books), "exhaustion": row.exhaustion,
        "cases": ", ".join(f"[`{kind}`](../runbooks/{kind}.md)" if kind in CASE_KINDS else f"`{kind}`"
                           for kind in row.cases) or "–",
        "code": f"`{module_file(row.code)}`" if row.code else "–", "tests": listed(tests_of(row.id)),
    }  # fmt: skip
    rows = table(f"{row.id} | {row.step}", [f"{name} | {text}" for name, text in cells.items()])
    built = "" if row.status == "built" else " · not built"
    return [f"### {row.id} · {row.name}{built}", "", *rows, ""]


def matrix() -> list[str]:
    """All rows."""
    head = [f"Version `{MATRIX.version}`.", ""]
    return [*head, *[line for row in MATRIX.rows for line in matrix_row(row)]][:-1]


def timing() -> list[str]:
    """The limits of both profiles."""

    def shown(value: Any) -> str:
        return json.dumps(list(value) if isinstance(value, tuple) else value)

    rows = [f"`{key}` | {shown(first)} | {shown(second)}" for key, (first, second) in TIMING.items()]
    return table("key | production | acceptance", rows)


# --- views -------------------------------------------------------------------------------------------


def columns() -> list[str]:
    """Each view with its columns."""
    return table("view | columns", [f"`{view}` | {', '.join(names)}" for view, names in views().items()])


# --- the pages ---------------------------------------------------------------------------------------

PARTS: Final[dict[str, Callable[[], list[str]]]] = {
    "subjects": index,
    "errors": errors,
    "cases": cases,
    **{part: _subjects(part) for part in PLACES},
    "matrix": matrix,
    "timing": timing,
    "states": states.sections,
    "views": columns,
}


def page(path: Path) -> str:
    """A page as it should be; KeyError for a part that nobody makes."""
    text = path.read_text(encoding="utf-8")
    return BLOCK.sub(lambda found: found[1] + "\n".join(PARTS[found[2]]()) + "\n" + found[3], text)


if __name__ == "__main__":
    for one in sorted(FOLDER.glob("*.md")):
        one.write_text(page(one), encoding="utf-8")
    print(f"{FOLDER.name} written")
