"""The log: JSON where nobody sits before it, what entity and trace a line is about, and no flood of the same line."""

import io
import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from amends.values.records import RunEndRow
from supervisors import logs
from supervisors.decisions import MOST, WINDOW_S, Decisions

log = logging.getLogger("amends.test")


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """Whatever was configured is there again afterwards."""
    kept = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:], logging.root.level = kept[0], kept[1]


class Terminal(io.StringIO):
    """A stream before which somebody sits."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_elsewhere_than_on_a_terminal_each_line_is_an_object() -> None:
    out = io.StringIO()
    logs.configure({}, out)
    log.info("it is\n%s", "so", extra={"entity": "node:n1", "trace_id": "a" * 32, "request_id": ""})
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("failed")
    log.debug("not seen")
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first.pop("at").endswith("+00:00")
    assert first == {"level": "info", "logger": "amends.test", "message": "it is\nso", "entity": "node:n1",
                     "trace_id": "a" * 32}  # fmt: skip
    assert (second["level"], "ValueError: no" in second["error"]) == ("error", True)


@pytest.mark.parametrize(
    ("environ", "out", "as_json"),
    [({}, Terminal(), False), ({}, io.StringIO(), True), ({"AMENDS_LOG_FORMAT": "json"}, Terminal(), True),
     ({"AMENDS_LOG_FORMAT": "text"}, io.StringIO(), False)],
)  # fmt: skip
def test_people_read_text(environ: dict[str, str], out: io.StringIO, as_json: bool) -> None:
    logs.configure({**environ, "AMENDS_LOG_LEVEL": "debug"}, out)
    log.debug("here")
    assert out.getvalue().startswith("{") == as_json
    assert "here" in out.getvalue()


def test_the_same_line_is_not_written_for_ever() -> None:
    now = [0.0]
    repeats = logs.Repeats(lambda: now[0])

    def record(message: str, name: str = "amends.test") -> logging.LogRecord:
        return logging.LogRecord(name, logging.INFO, "", 1, message, (), None)

    passed = [repeats.filter(record("lost %s")) for _ in range(50)]
    assert passed == [True] * logs.BURST + [False] * (50 - logs.BURST)
    assert repeats.filter(record("another"))
    now[0] = logs.WINDOW_S
    late = record("lost %s")
    assert repeats.filter(late)
    assert "30 more like this were left out" in logs.TextLines().format(late)
    assert json.loads(logs.JsonLines().format(late))["left_out"] == 30
    for number in range(logs.KINDS * 2):
        assert repeats.filter(record(f"kind {number}"))
    assert len(repeats._seen) <= logs.KINDS


def test_a_process_without_standard_error_logs_nowhere_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    logs.configure({})
    log.error("nobody hears it")


def test_half_a_character_is_no_reason_to_lose_a_line() -> None:
    out = io.StringIO()
    logs.configure({}, out)
    log.info("a file: %s", "a\udcff")
    assert json.loads(out.getvalue())["message"] == "a file: a?"


class Turn:
    """A committed turn."""

    ref, trace_id, recovery_trace_id, before, state = "node:n1", "a" * 32, "", None, None

    def __init__(self, *rows: object) -> None:
        self.rows, self.env = rows, SimpleNamespace(request_id="")


def test_decisions_that_amended_are_told_and_counted_beyond_their_budget() -> None:
    out, now = io.StringIO(), [0.0]
    logs.configure({}, out)
    told: Any = Decisions(lambda: now[0])
    for _ in range(MOST + 7):
        told.follow(Turn(RunEndRow("recov_1", "recovered", 1, "{}"), object()))
    told.follow(Turn(object()))
    assert len(out.getvalue().splitlines()) == MOST
    now[0] = WINDOW_S
    told.follow(Turn(RunEndRow("recov_1", "recovered", 1, "{}")))
    last = json.loads(out.getvalue().splitlines()[-1])
    assert (last["message"], last["left_out"], last["entity"]) == ("node:n1: recovery recovered", 7, "node:n1")
