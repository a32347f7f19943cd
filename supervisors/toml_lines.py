"""TOML read whole or refused, the line on which a value stands, and how a text is written: tomllib lacks all three."""

import json
import re
import tomllib
from typing import Any, Final

MOST_DEEP: Final = 32  # tables in one another, also those that dots make
Path = tuple[str | int, ...]  # ("rule", 2, "bp") is `bp` of the third [[rule]]
_ARRAY = re.compile(r"\s*\[\[\s*(.+?)\s*\]\]")
_TABLE = re.compile(r"\s*\[\s*([^\[].*?)\s*\]")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_LONG = re.compile(r"[0-9][0-9_]{4000}")  # more digits than 4 300 Python does not read
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


def quoted(text: object) -> str:
    """A text as a TOML string: what JSON escapes, and DEL, which TOML does not take as it is."""
    return json.dumps(str(text), ensure_ascii=False).replace("\x7f", "\\u007f")


def parsed(text: str) -> dict[str, Any]:
    """What a TOML text says; raises `ValueError` for what is none, or has a number or a depth without end."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:
        line = next((number for number, line in enumerate(text.splitlines(), 1) if _LONG.search(line)), 0)
        raise ValueError(f"a number has too many digits (at line {line})") from None
    except RecursionError:
        raise ValueError(f"there are more than {MOST_DEEP} tables or lists in one another") from None
    inner: list[Any] = [found]
    for _ in range(MOST_DEEP):
        inner = [each for one in inner if isinstance(one, dict | list)
                 for each in (one.values() if isinstance(one, dict) else one)]  # fmt: skip
    if inner:
        raise ValueError(f"there are more than {MOST_DEEP} tables or lists in one another")
    return found


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
