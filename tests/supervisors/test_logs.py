"""The log: JSON where nobody sits before it, what entity and trace a line is about, and no flood of the same line."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from supervisors import logs

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
    assert sum(repeats.filter(record("x", "amends.decisions")) for _ in range(1000)) == 500
    now[0] = logs.WINDOW_S
    late = record("lost %s")
    assert repeats.filter(late)
    assert "30 more like this were left out" in logs.TextLines().format(late)
    assert json.loads(logs.JsonLines().format(late))["left_out"] == 30
    for number in range(logs.KINDS * 2):
        assert repeats.filter(record(f"kind {number}"))
    assert len(repeats._seen) <= logs.KINDS
