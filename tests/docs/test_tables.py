"""The tables of docs/operations.md and docs/telemetry.md are the code's: nothing missing, nothing invented."""

import asyncio.log
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import aiohttp.log
import msgspec
import pytest

from amends.values.limits import LimitValue
from supervisors.api.metrics import Metrics
from supervisors.settings import Section, Settings
from supervisors.timing import TIMING

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("src", "actors", "supervisors", "adapters")
ATTRIBUTE = re.compile(
    r"'((?:amends|recovery|compensation|failure|messaging|rpc|db|error|server|service)\.[a-z0-9_.]+)'"
)
SPAN_NAMES = {"recovery.started", "recovery.ended"}


def tables(page: str) -> dict[str, list[list[str]]]:
    """The tables of a page by the name of their first column, as rows of cells."""
    found: dict[str, list[list[str]]] = {}
    rows: list[list[str]] = []
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            rows = []
        elif not rows:
            rows = found.setdefault("/".join(cell.strip() for cell in line.strip("|").split("|")), [[]])
        else:
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return {head: rows[2:] for head, rows in found.items()}


def code() -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for name in PACKAGES for path in (ROOT / name).rglob("*.py")}


def settings() -> Iterator[tuple[str, Any]]:
    """Every key of the configuration, as the page writes it, and its default."""
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            for key in msgspec.structs.fields(field.type):
                yield f"`[{field.name}].{key.name}`", default(key)
        else:
            name = f"[{field.name}]" if isinstance(default(field), dict) else field.name
            yield f"`{name}`", default(field)


def default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def test_the_configuration_table_has_every_key_with_its_default() -> None:
    written = {row[0]: row[1] for row in tables("operations.md")["key/default/meaning"]}
    assert written == {key: f"`{json.dumps(value)}`" for key, value in settings()}


def shown(value: LimitValue) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def test_the_timing_table_has_every_key_with_both_profiles() -> None:
    written = {row[0]: row[1:3] for row in tables("operations.md")["key/production/acceptance/bounds"]}
    wanted = {f"`{key}`": [shown(value) for value in both] for key, both in TIMING.items()}
    assert written == wanted


def test_a_timing_key_is_said_to_be_unused_exactly_when_no_code_asks_for_it() -> None:
    rows = tables("operations.md")["key/production/acceptance/bounds"]
    said = {row[0].strip("`") for row in rows if row[3].startswith("not used yet")}
    asking = "\n".join(text for path, text in code().items() if path.name not in ("timing.py", "matrix.py"))
    assert said == {key for key in TIMING if f'"{key}"' not in asking}


async def test_the_metrics_table_is_what_is_served() -> None:
    some = MagicMock()
    told = Metrics(some, some, some, some, requests=some, service=some, answers=some, heartbeats=some, exporter=some,
                   services=some, webhooks=some, stripe=some, objectives=some).samples()  # fmt: skip
    served = [[f"`{name}`", kind, purpose] for name, kind, purpose, _ in told]
    assert tables("telemetry.md")["metric/type/meaning"] == served


def test_the_attribute_table_names_every_attribute_of_the_span_view() -> None:
    newest = max((ROOT / "adapters/postgres/migrations").glob("*_spans.sql"))  # each writes all of them anew
    derived = set(ATTRIBUTE.findall(newest.read_text(encoding="utf-8"))) - SPAN_NAMES
    cells = [row[0] for row in tables("telemetry.md")["attribute/on/value"]]
    written = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    assert written == derived


def test_the_logger_table_names_every_logger() -> None:
    used = {name for text in code().values() for name in re.findall(r'getLogger\("(amends\.[a-z.]+)"\)', text)}
    written = {row[0].strip("`") for row in tables("telemetry.md")["logger/speaks of"]}
    libraries = {aiohttp.log.server_logger.name, asyncio.log.logger.name}
    assert written == used | libraries


@pytest.mark.parametrize("page", ["operations.md", "telemetry.md"])
def test_no_row_of_a_table_lacks_a_cell(page: str) -> None:
    for head, rows in tables(page).items():
        assert rows, head
        assert {len(row) for row in rows} == {len(head.split("/"))}, head
