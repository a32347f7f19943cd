"""The read side: read-only connections of its own, named reads, and the queries behind `qry.<entity>.…`.

    read = ReadSide(dsn)
    await read.rows("violations")                  → list of dicts
    await read.get("node", "n1")                   → the view's row; Rejected("not_found")
    await read.page("step", {"entity": "node:n1"}, limit=50, cursor=None)
                                                   → {"items": [...], "cursor": "…" or None}
    await read.aclose()

Who asks (`Asker`) waits in a queue of its own, and the queues are served in turn. What takes longer than it may raises
`TooSlow`.

Rows are plain JSON-able dicts (json columns decoded). All raise `Unavailable` when Postgres is away. What the
caller got wrong is `Rejected("invalid_request", …, field=…)`. Identifiers come from the catalog alone, values
are parameters.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec

from adapters.postgres.connect import COMMAND_TIMEOUT_S, classify, close, connect
from adapters.postgres.filters import check_filters
from adapters.postgres.silence import watched
from adapters.postgres.statements import statement
from amends.ports.reading import ANYBODY, CONNECTIONS, Asker
from amends.runtime.request_places import FairPlaces
from amends.values.errors import Rejected, TooSlow, TurnFailed, Unavailable

MAX_LIMIT, DEFAULT_LIMIT = 500, 100
LISTED = frozenset(("allocation", "notification"))  # no index has their state while it may change
NO_ENDS: Mapping[str, frozenset[str]] = {}
MAX_TEXT = 1024
# Reads of the view of spans: to plan one takes longer than to run it, the more so the more months there are. Their
# connections plan each once, by indexes alone, so that no plan is right for small tables only.
PLANNED_ONCE = frozenset(("spans_between", "spans_of"))
_PLAN_ONCE = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}
PAGE_BYTES = 512 * 1024  # a message of NATS carries 1 MiB

# Entity → the column that names its rows; the view has the entity's own name (api.md 3).
ENTITIES: Mapping[str, str] = {
    "account": "account_id", "node": "node_id", "allocation": "allocation_id", "attachment": "attachment_id",
    "namespace": "namespace_id", "provider_grant": "grant_id", "debt": "debt_id", "meter": "meter_id",
    "ledger_entry": "entry_id", "payment": "payment_id", "stripe_event": "event_id",
    "notification": "notification_id", "outbox": "outbox_id", "step": "step_id",
    "failure": "failure_id", "recovery_run": "recovery_id", "recovery_action": "action_id",
    "compensation": "compensation_id", "audit_log": "audit_id", "ops_case": "case_id",
}  # fmt: skip


class ReadSide:
    """Read-only connections to one database, made when needed, at most `CONNECTIONS` of them asked at once.

    `timeout_s` bounds one statement, and once more the wait for a connection. `ends`: the states in which entities of a
    kind have ended.
    """

    def __init__(
        self, dsn: str, timeout_s: float = COMMAND_TIMEOUT_S, *, role: str = "",
        ends: Mapping[str, frozenset[str]] = NO_ENDS,
    ) -> None:  # fmt: skip
        self._dsn, self._timeout_s, self._role, self._ends = dsn, timeout_s, role, ends
        self._places = FairPlaces(CONNECTIONS)
        self._idle: dict[bool, list[asyncpg.Connection[Any]]] = {False: [], True: []}  # by whether they plan once
        self._columns: dict[str, dict[str, str]] = {}
        self._looking: asyncio.Task[None] | None = None  # the catalog is read once, however many ask first

    # --- named reads ---------------------------------------------------------------------------------

    async def rows(self, name: str, *args: Any, asker: Asker = ANYBODY) -> list[dict[str, Any]]:
        """The rows of a named statement; raises `Unavailable`, and `Refused` when the database refuses it."""
        return await self._fetch(statement(name), args, asker, once=name in PLANNED_ONCE)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["asyncpg.Connection[Any]"]:
        """A read-only connection for a longer reading (the verifiers); raises `Unavailable`."""
        async with self._place(ANYBODY):
            connection = await self._connect()
            try:
                yield connection
            finally:
                await close(connection)

    async def aclose(self) -> None:
        """Close what is open."""
        if self._looking is not None:
            self._looking.cancel()
        for idle in self._idle.values():
            while idle:
                await close(idle.pop())

    # --- queries -------------------------------------------------------------------------------------

    async def get(self, entity: str, identifier: Any, asker: Asker = ANYBODY) -> dict[str, Any]:
        """The row of that id."""
        id_column, columns = await self._view(entity)
        value = _checked("id", columns[id_column], identifier)
        query = f'SELECT * FROM public_v1."{entity}" WHERE "{id_column}" = $1'  # noqa: S608 - the catalog's names
        found = await self._fetch(query, (value,), asker)
        if not found:
            raise Rejected("not_found", f"there is no {entity} {identifier!r}", field="id")
        return found[0]

    async def page(
        self, entity: str, filters: Mapping[str, Any], limit: Any = DEFAULT_LIMIT, cursor: Any = None,
        asker: Asker = ANYBODY,
    ) -> dict[str, Any]:  # fmt: skip
        """Rows that equal every filter, in the order of their ids, and a cursor if there are more.

        Beside columns `filters` may have `order` (`oldest`, the default, or `newest` first) and `id_prefix`.

        Filters are those that an index finds (`filters.py`). A page ends before `limit` rows where they would not fit
        into one reply.
        """
        id_column, columns = await self._view(entity)
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
            raise Rejected("invalid_request", f"limit must be a number from 1 to {MAX_LIMIT}", field="limit")
        filters = dict(filters)
        after, direction = _order(filters.pop("order", "oldest"))
        prefix = filters.pop("id_prefix", None)
        check_filters(entity, columns, filters)
        if filters.get("state", "") is None:  # every row has one, and no index would find those without
            return {"items": [], "cursor": None}
        conditions, values = [], []
        view = f'public_v1."{entity}"'
        if entity in LISTED & self._ends.keys() and isinstance(state := filters.get("state"), str):
            view, ended = f"listed_{entity}", state in self._ends[entity]
            conditions.append("ended_state IS NOT NULL" if ended else "live")
            filters["ended_state" if ended else "state"] = filters.pop("state")
        for field, wanted in filters.items():
            if wanted is None:
                conditions.append(f'"{field}" IS NULL')
                continue
            kind = columns["state" if field == "ended_state" else field]
            values.append(_checked(field, kind, wanted))
            cast = "::jsonb" if kind in ("json", "jsonb") else ""
            conditions.append(f'"{field}"{cast} = ${len(values)}{cast}')
        if cursor is not None:
            values.append(_position(entity, cursor))
            conditions.append(f'"{id_column}" {after} ${len(values)}')
        if prefix is not None:  # a range, so that the key's index finds it, and then exactly
            values += [_checked("id_prefix", "text", prefix), f"{prefix}{'z' * 32}"]
            low, high = f"${len(values) - 1}", f"${len(values)}"
            conditions.append(f'"{id_column}" BETWEEN {low} AND {high} AND starts_with("{id_column}", {low})')
        values.append(limit + 1)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        order = f' ORDER BY "{id_column}" {direction} LIMIT ${len(values)}'
        names = ", ".join(f'"{name}"' for name in columns)
        query = f"SELECT {names} FROM {view}{where}{order}"  # noqa: S608 - the catalog's names
        found = await self._fetch(query, values, asker)
        items = _fitting(found[:limit])
        more = len(found) > len(items)
        return {"items": items, "cursor": _cursor(entity, items[-1][id_column]) if more else None}

    async def columns(self, entity: str) -> Mapping[str, str]:
        """Column → type of an entity's view, in the view's order."""
        return (await self._view(entity))[1]

    async def _view(self, entity: str) -> tuple[str, dict[str, str]]:
        if not self._columns:
            if self._looking is None:
                self._looking = asyncio.create_task(self._look(), name="read-catalog")
                self._looking.add_done_callback(self._looked)
            await asyncio.shield(self._looking)
        if entity not in ENTITIES or entity not in self._columns:
            raise Rejected("invalid_request", f"there is no entity {entity!r} to ask for", field="entity")
        return ENTITIES[entity], self._columns[entity]

    async def _look(self) -> None:
        columns: dict[str, dict[str, str]] = {}
        for row in await self.rows("view_columns"):
            columns.setdefault(row["view"], {})[row["name"]] = row["type"]
        self._columns = columns

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None  # what failed is tried again by who asks next
        if not task.cancelled():
            task.exception()  # told to those who waited; all may have gone

    # --- connections ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def _place(self, asker: Asker) -> AsyncIterator[None]:
        entered = False
        try:
            async with self._places.place(asker.name, asker.most, self._timeout_s):
                entered = True
                yield
        except TimeoutError:
            if entered:
                raise
            raise TooSlow(f"too many questions wait; none was begun within {self._timeout_s:g} s") from None

    async def _fetch(self, query: str, args: Any, asker: Asker, *, once: bool = False) -> list[dict[str, Any]]:
        async with self._place(asker):
            idle = self._idle[once]
            while True:
                kept = bool(idle)
                connection = idle.pop() if kept else await self._connect(once=once)
                try:
                    async with watched(connection, self._dsn):
                        found = await connection.fetch(query, *args)
                except BaseException as error:
                    if isinstance(error, asyncpg.QueryCanceledError | asyncpg.LockNotAvailableError):
                        idle.append(connection)
                        text = f"the answer takes longer than {self._timeout_s:g} s; ask for less: a filter, a limit"
                        raise TooSlow(text) from error
                    blame = _blame(error)
                    if isinstance(blame, TurnFailed):
                        idle.append(connection)
                        raise blame from error
                    connection.terminate()
                    if blame is None:
                        raise
                    if kept and not isinstance(error, TimeoutError):
                        continue  # it died while it was idle; a new one tells whether the server is there
                    raise blame from error
                idle.append(connection)
                return [dict(row) for row in found]

    async def _connect(self, *, once: bool = False) -> "asyncpg.Connection[Any]":
        connection = await connect(self._dsn, name="amends-read", read_only=True, role=self._role)
        try:
            await connection.execute(f"SET statement_timeout = {int(self._timeout_s * 1000)}")
            for name, value in _PLAN_ONCE.items() if once else ():
                await connection.execute(f"SET {name} = {value}")
            for kind in ("json", "jsonb"):
                await connection.set_type_codec(
                    kind, schema="pg_catalog", encoder=_to_json, decoder=msgspec.json.decode, format="text"
                )
        except BaseException as error:
            connection.terminate()
            blame = _blame(error)
            if blame is None:
                raise
            raise blame from error
        return connection


def _order(wanted: Any) -> tuple[str, str]:
    """How a cursor's place is compared, and the direction, for `order`: ids are in the order of time."""
    if wanted not in ("oldest", "newest"):
        raise Rejected("invalid_request", "order must be oldest or newest", field="order")
    return (">", "ASC") if wanted == "oldest" else ("<", "DESC")


def _blame(error: BaseException) -> TurnFailed | Unavailable | None:
    """What a driver's error means; None for what is no driver's error (a cancellation)."""
    if isinstance(error, asyncpg.InternalClientError):  # the server ended the session while it was idle
        return Unavailable(f"Postgres: {error}")
    try:
        return classify(error)
    except BaseException as other:
        if other is not error:
            raise
        return None


def _fitting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of them, one at least, as one reply has room for."""
    size = 0
    for count, row in enumerate(rows):
        size += len(_to_json(row).encode())
        if size > PAGE_BYTES and count:
            return rows[:count]
    return rows


def _to_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _checked(field: str, kind: str, value: Any) -> Any:
    """The value as a parameter of that column type, or a refusal that names the field."""
    if kind in ("json", "jsonb"):
        good, wanted = _holds(value), "a value without NUL characters"
    elif kind == "boolean":
        good, wanted = isinstance(value, bool), "true or false"
    elif kind in ("bigint", "integer"):
        bits = 63 if kind == "bigint" else 31
        good = isinstance(value, int) and not isinstance(value, bool) and -(1 << bits) <= value < 1 << bits
        wanted = f"a whole number of {bits + 1} bits"
    else:
        good = isinstance(value, str) and len(value) <= MAX_TEXT and "\0" not in value and _encodes(value)
        wanted = f"a text of at most {MAX_TEXT} characters"
    if not good:
        raise Rejected("invalid_request", f"{field} must be {wanted}", field=field)
    return value


def _holds(value: Any) -> bool:
    """Whether the database can hold it as JSON."""
    try:
        return "\\u0000" not in _to_json(value)
    except (msgspec.MsgspecError, UnicodeEncodeError, ValueError):
        return False


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _cursor(entity: str, last: str) -> str:
    return base64.urlsafe_b64encode(_to_json([entity, last]).encode()).decode().rstrip("=")


def _position(entity: str, cursor: Any) -> str:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        of, last = msgspec.json.decode(text, type=tuple[str, str])
    except (TypeError, ValueError, binascii.Error, msgspec.DecodeError):
        of, last = "", ""
    if of != entity or not last or "\0" in last:
        raise Rejected("invalid_request", f"cursor is none that a list of {entity} gave", field="cursor")
    return last
