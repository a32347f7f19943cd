"""What tomllib leaves out: on which line of a file a value stands, for refusals; and how a text is written."""

import json
import re

Path = tuple[str | int, ...]  # ("rule", 2, "bp") is `bp` of the third [[rule]]
_ARRAY = re.compile(r"\s*\[\[\s*(.+?)\s*\]\]")
_TABLE = re.compile(r"\s*\[\s*([^\[].*?)\s*\]")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


def quoted(text: object) -> str:
    """A text as a TOML string: what JSON escapes, and DEL, which TOML does not take as it is."""
    return json.dumps(str(text), ensure_ascii=False).replace("\x7f", "\\u007f")


def lines_of(text: str) -> dict[Path, int]:
    """Path → line of every table, every element of an array of tables, and every key that begins a line."""
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        if match := _ARRAY.match(line):
            name = _within(_parts(match[1]), counts)
            counts[name] = counts.get(name, -1) + 1
            table = (*name, counts[name])
            found.setdefault(name, number)
        elif match := _TABLE.match(line):
            table = _within(_parts(match[1]), counts)
        elif match := _KEY.match(line):
            found.setdefault((*table, *_parts(match[1])), number)
            continue
        else:
            continue
        found.setdefault(table, number)
    return found


def line_at(lines: dict[Path, int], path: Path) -> int:
    """The line of that value, or of the nearest thing around it; 0 where nothing is."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)


def _parts(name: str) -> Path:
    return tuple(part.strip("\"'") for part in _PART.findall(name))


def _within(path: Path, counts: dict[Path, int]) -> Path:
    """The path with the number of the newest element behind each array that it goes through."""
    whole: Path = ()
    for part in path[:-1]:
        whole = (*whole, part)
        whole = (*whole, counts[whole]) if whole in counts else whole
    return (*whole, *path[-1:])
