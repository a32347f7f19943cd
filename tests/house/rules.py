"""House rules that no linter knows, as functions: text in, complaints out. test_house.py applies them."""

import ast
import re
from collections.abc import Iterator

FILE_LINES = 500
FUNCTION_LINES = 70
README_LINES = 200

# Put together here, so that the rules do not find themselves.
_NOTES = "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"))
LEFT_OVER = re.compile(rf"\b({_NOTES})\b")
WAIT_FOR = re.compile(r"asyncio\s*\.\s*wait_for\s*\(" + "|" + r"from asyncio import [^\n]*\bwait_for\b")
UNCHECKED_HOST = re.compile(r"known_hosts\s*=\s*" + "None")
WEB_ADDRESS = re.compile(r"https?" + r"://|--(?:index-url|extra-index-url|find-links|trusted-host)")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:" + "work|root|home/\\w+" + r")(?=/)")

_PATTERNS = {
    LEFT_OVER: "a note of unfinished work",
    WAIT_FOR: "wait_for, which swallows cancellations on Python 3.11; use asyncio.timeout",
    UNCHECKED_HOST: "an SSH connection that checks no host key",
    WEB_ADDRESS: "an address of the network",
    MACHINE_PATH: "a path of one machine",
}


def matches(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    """Complaints about every line of `text` in which `pattern` is found."""
    for number, line in enumerate(text.splitlines(), 1):
        if pattern.search(line):
            yield f"{number}: {_PATTERNS[pattern]}: {line.strip()[:100]}"


def too_long(text: str, limit: int) -> Iterator[str]:
    """A complaint if `text` has more than `limit` lines."""
    lines = len(text.splitlines())
    if lines > limit:
        yield f"{lines} lines, at most {limit}"


def long_functions(text: str) -> Iterator[str]:
    """Complaints about functions that do not fit a screen."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield f"{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES}"


def silent_excepts(text: str) -> Iterator[str]:
    """Complaints about `except …: pass`, which is easily overlooked; contextlib.suppress is not."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            first = node.body[0]
            empty = isinstance(first, ast.Pass) or (
                isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and first.value.value is ...
            )
            if len(node.body) == 1 and empty:
                yield f"{node.lineno}: an exception passed over in silence"


def no_docstring(text: str) -> Iterator[str]:
    """A complaint if the module does not begin with what it is."""
    if ast.get_docstring(ast.parse(text)) is None:
        yield "1: no docstring that says what the file is"


def imports_of(text: str, module: str) -> Iterator[str]:
    """Complaints about imports of `module` or of something in it."""
    parent, _, name = module.rpartition(".")
    for node in ast.walk(ast.parse(text)):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found = [node.module] + [f"{parent}.{name}" for a in node.names if node.module == parent and a.name == name]
        if any(f"{one}.".startswith(f"{module}.") for one in found):
            yield f"{getattr(node, 'lineno', 0)}: imports {module}"


_EXPANDS = re.compile(
    r"CREATE (?:TABLE|INDEX|FUNCTION|SEQUENCE)\b|ALTER TABLE \w+ ADD COLUMN|GRANT\b|COMMENT\b|SELECT set_config\("
)
_NARROWS = re.compile(
    r"\b(?:DROP|RENAME|TYPE|UNIQUE|CHECK|REFERENCES|PRIMARY|CONSTRAINT|ALTER COLUMN|REVOKE|REPLACE)\b"
)
_NEW_TABLE = re.compile(r"CREATE TABLE (\w+)")
_OF_TABLE = re.compile(
    r"(?:CREATE (?:UNIQUE )?INDEX \w+ ON|CREATE TRIGGER \w+ [\w ]+? ON|ALTER TABLE|INSERT INTO) (\w+)"
)
# What follows from rows that were inserted, kept beside them: who inserts them need not know.
_DERIVES = re.compile(r"CREATE TRIGGER \w+ AFTER INSERT ON \w+ REFERENCING NEW TABLE AS \w+ FOR EACH STATEMENT ")
_DECLARES = re.compile(r"-- (?:expand|contract): \S")


def undeclared(text: str) -> Iterator[str]:
    """A complaint about a migration that does not say by its first line whether the release before lives with it."""
    if not _DECLARES.match(text):
        yield "1: it says neither `-- expand: …` nor `-- contract: …`"


def narrowing(text: str) -> Iterator[str]:
    """Complaints about what an expanding migration may not do: the release before reads and writes as it always did.

    It adds tables, plain indexes, functions, columns that may be left out of a row, and what follows from rows that
    were inserted; whatever else belongs into a contracting one, a release later.
    """
    if not text.startswith("-- expand:"):
        return
    bare = re.sub(r"--[^\n]*", "", text)
    bodies = re.sub(r"\$(\w*)\$.*?\$\1\$", "$$", bare, flags=re.DOTALL)
    new = set(_NEW_TABLE.findall(bodies))
    for statement in (" ".join(each.split()) for each in bodies.split(";")):
        if not statement or _NEW_TABLE.match(statement):
            continue
        of = _OF_TABLE.match(statement)
        if of and of[1] in new:
            continue
        if _DERIVES.match(statement):
            continue
        required = "NOT NULL" in statement and "DEFAULT" not in statement
        if not _EXPANDS.match(statement) or _NARROWS.search(statement) or required:
            yield f"an expanding migration may not: {statement[:100]}"
