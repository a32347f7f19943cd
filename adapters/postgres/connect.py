"""Connections of one runtime: their session settings, and which driver errors mean what."""

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from amends.values.errors import BadConfiguration, Locked, Refused, TurnFailed, Unavailable

COMMAND_TIMEOUT_S = 30.0
LOCK_TIMEOUT_MS = 50  # a foreign session's lock delays one attempt of one batch by this much, no more

# Trouble of the server or the way to it, not of the rows (SQLSTATE classes): 08 connection, 25 transaction state
# (a read-only server: 25006), 26 a prepared statement that is gone (a pooler), 40 rolled back by the server, 53
# resources (disk full, connections), 57 operator intervention, 58 system error, XX internal.
_UNAVAILABLE_CLASSES = ("08", "25", "26", "40", "53", "57", "58", "XX")
_NO_MORE_XIDS = "not accepting commands"  # of 54000, which is otherwise said of a row that is too big
_UNREACHABLE = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, asyncio.IncompleteReadError)
DRIVER_ERRORS = (asyncpg.PostgresError, *_UNREACHABLE)  # all that a call may raise when the server or the way is bad
_LOCKED = ("55P03", "40P01", "40001")


# A statement prepared while its table was empty keeps its plan as the table grows; the writer's statements all find
# their rows by `key = ANY (…)`, so its session plans for nothing else. Without the array, or with loops, a table that a
# burst has just emptied would be walked, or gone through once for each row: the planner takes it for tiny.
_BY_KEY_ONLY = {"enable_seqscan": "off", "enable_nestloop": "off", "enable_mergejoin": "off"}


async def connect(
    dsn: str, *, epoch: int = 0, name: str = "", read_only: bool = False, by_key: bool = False, role: str = ""
) -> "asyncpg.Connection[Any]":
    """A connection of the runtime holding `epoch`, working as `role` if one is named; raises `Unavailable`."""
    settings = {
        "application_name": name or f"amends:{epoch}",
        "lock_timeout": str(LOCK_TIMEOUT_MS) if epoch else "5s",
        "statement_timeout": "30s",
        "idle_in_transaction_session_timeout": "10s",
        "timezone": "UTC",
        "jit": "off",
    }
    if by_key:
        settings |= _BY_KEY_ONLY
    if epoch:
        settings["amends.epoch"] = str(epoch)
    if role:
        settings["role"] = role
    if read_only:
        settings["default_transaction_read_only"] = "on"
        settings["plan_cache_mode"] = (
            "force_custom_plan"  # a plan made for an empty table must not stay when it has grown
        )
    try:
        return await asyncpg.connect(dsn, timeout=10, command_timeout=COMMAND_TIMEOUT_S, server_settings=settings)
    except asyncpg.exceptions.ClientConfigurationError as error:
        raise BadConfiguration(f"[postgres].dsn (AMENDS_POSTGRES_DSN) cannot be meant: {error}") from None
    except ValueError:  # its text may hold a part of the password
        raise BadConfiguration(
            "[postgres].dsn (AMENDS_POSTGRES_DSN) has no host and port that can be meant: in user, password and name "
            "write %40 for @, %3A for : and %2F for /"
        ) from None
    except DRIVER_ERRORS as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unavailable(f"Postgres at {place_of(dsn)} cannot be reached: {why}; {_advice(dsn)}") from error


def place_of(dsn: str) -> str:
    """Where the database of a DSN is, without a password: `db:5432/amends`; a socket's folder for a host."""
    try:
        parts = urlsplit(dsn)  # its options may hold a password too
    except ValueError:
        return "an unknown place"
    if "@" in parts.path:  # a password with a slash
        return "an unknown place"
    host = parts.netloc.rpartition("@")[2] or "".join(parse_qs(parts.query).get("host", []))
    return f"{host}{parts.path}"


def _advice(dsn: str) -> str:
    if place_of(dsn).startswith("/"):
        return "an embedded one runs only while its `amends run` does: start that, or the server of this socket"
    return "start it, or correct [postgres].dsn (AMENDS_POSTGRES_DSN)"


def classify(error: BaseException) -> TurnFailed | Unavailable:
    """The blame of a driver error raised inside a commit."""
    if isinstance(error, asyncpg.PostgresError):
        state = str(error.sqlstate or "XX000")
        if state in _LOCKED:
            return Locked(str(error))
        if state[:2] in _UNAVAILABLE_CLASSES or isinstance(error, asyncpg.InvalidCachedStatementError):
            return Unavailable(f"Postgres: {error}")
        if state == "54000" and _NO_MORE_XIDS in str(error):
            return Unavailable(f"Postgres: {error}")
        return Refused(state, str(error), str(getattr(error, "constraint_name", None) or ""))
    if isinstance(error, _UNREACHABLE):
        return Unavailable(f"Postgres: {error}")
    if isinstance(error, asyncpg.DataError | ValueError | TypeError | UnicodeError):
        return Refused("22000", str(error))
    raise error


async def close(connection: "asyncpg.Connection[Any] | None") -> None:
    """Close, bounded: a connection that does not close in a second is cut."""
    if connection is None or connection.is_closed():
        return
    try:
        await connection.close(timeout=1.0)
    except DRIVER_ERRORS:
        connection.terminate()
