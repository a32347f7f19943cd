"""The program's log on standard error: text for a terminal, else a JSON object a line; repeats are left out.

`AMENDS_LOG_LEVEL` and `AMENDS_LOG_FORMAT`, or `[log]`, say how. A line carries what its logger gave with `extra`:
entity, trace_id, recovery_trace_id, request_id.
"""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, TextIO

import msgspec

TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
FIELDS: Final = ("entity", "trace_id", "recovery_trace_id", "request_id")
LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("auto", "text", "json")
BURST, WINDOW_S = 20, 10.0  # so many lines of one kind within so long; then they are only counted
OWN_BUDGET: Final = ("amends.decisions",)  # what bounds itself, before a line is made of it
KINDS: Final = 2000  # of lines that are counted apart


class JsonLines(logging.Formatter):
    """One object a line: at, level, logger, message, what `extra` gave, `error` with the stack, `left_out`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(), "logger": record.name, "message": _whole(record.getMessage()),
        }  # fmt: skip
        line |= {name: _whole(str(value)) for name in FIELDS if (value := getattr(record, name, ""))}
        if record.exc_info:
            line["error"] = _whole(self.formatException(record.exc_info))
        if left_out := getattr(record, "left_out", 0):
            line["left_out"] = left_out
        return msgspec.json.encode(line).decode()


def _whole(text: str) -> str:
    """Without halves of characters, which a file's name may have and JSON may not."""
    return text.encode("utf-8", "replace").decode()


class TextLines(logging.Formatter):
    """For people."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """The line, and how many like it were left out before it."""
        left_out = getattr(record, "left_out", 0)
        return super().format(record) + (f" ({left_out} more like this were left out)" if left_out else "")


class Repeats(logging.Filter):
    """Lets `BURST` lines of one kind (logger, level, message before its values) pass within `WINDOW_S`.

    The first one after that says how many were left out. Errors with a stack are of the kind of their message.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}  # kind → since when, how many

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is written."""
        now, kind = self._clock(), (record.name, record.levelno, str(record.msg))
        if record.name in OWN_BUDGET:
            return True
        since, count = self._seen.get(kind, (now, 0))
        if now - since >= WINDOW_S:
            record.left_out = max(0, count - BURST)
            since, count = now, 0
        if len(self._seen) >= KINDS and kind not in self._seen:
            self._seen.clear()
        self._seen[kind] = (since, count + 1)
        return count < BURST


def last_line(text: object, name: str = "amends") -> str:
    """How a program that logs says why it ends: an object like every other line of its log, or as any program does."""
    handlers = logging.getLogger().handlers
    if handlers and isinstance(handlers[0].formatter, JsonLines):
        return handlers[0].format(logging.LogRecord("amends.boot", logging.ERROR, "", 0, str(text), None, None))
    return f"{name}: {text}"


def last_word(text: object, name: str = "amends") -> None:
    """Say it on standard error."""
    if sys.stderr is not None:
        sys.stderr.write(f"{last_line(text, name)}\n")
        sys.stderr.flush()


def configure(environ: Mapping[str, str], stream: TextIO | None = None, *, level: str = "", shape: str = "") -> None:
    """Log to `stream`, else standard error; what is not given the environment says, else it is `info` and `auto`."""
    wanted = level or environ.get("AMENDS_LOG_LEVEL", "")
    shape = shape or environ.get("AMENDS_LOG_FORMAT", "")
    out = stream if stream is not None else sys.stderr
    handler: logging.Handler = logging.NullHandler()
    if out is not None:  # a process may have been started without
        handler = logging.StreamHandler(out)
        handler.setFormatter(JsonLines() if shape == "json" or (shape != "text" and not out.isatty()) else TextLines())
    handler.addFilter(Repeats())
    logging.basicConfig(level=(wanted if wanted in LEVELS else "info").upper(), handlers=[handler], force=True)
    logging.getLogger("asyncssh").setLevel(logging.ERROR)  # its warnings are our outcomes
    logging.getLogger("stripe").setLevel(logging.WARNING)  # else two lines for every request
