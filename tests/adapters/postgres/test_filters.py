"""Every filter of a list is found by an index, also for what hardly any of 50 000 rows has; so are kept replies."""

import json
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest

from adapters.postgres.derived import searched_columns
from adapters.postgres.filters import FILTERS, check_filters
from adapters.postgres.reading import ENTITIES, ReadSide
from adapters.postgres.statements import statement
from amends.ports.reading import Asker
from amends.values.errors import Rejected, TooSlow
from supervisors.rental import RENTAL
from tests.adapters.postgres.database import Database

ROWS = 50_000
MAX_BUFFERS = 150  # pages of one question: some hundred rows by index; a walk takes thousands
MANY = f"FROM generate_series(1, {ROWS}) AS n"
KINDS = {kind.name: kind for kind in RENTAL.kinds}
ENDS = {name: kind.ends for name, kind in KINDS.items()}


def stated(kind: str, identifier: str, state: str, body: str) -> str:
    """Fills the state table of a kind."""
    searched = searched_columns(KINDS[kind].columns)
    ends = ", ".join(f"'{end}'" for end in ("", *sorted(ENDS[kind])))
    columns = ", ".join((f"{kind}_id", "state", "version", "body", "live", "ended_state", *searched))
    values = ", ".join(("id, state, 1, body", f"state NOT IN ({ends})", f"CASE WHEN state IN ({ends}) THEN state END",
                        *searched.values()))  # fmt: skip
    made = f"SELECT {identifier} AS id, {state} AS state, {body} AS body {MANY}"
    return f"INSERT INTO {KINDS[kind].table} ({columns}) SELECT {values} FROM ({made}) AS made;"


FILL = f"""
{stated("account", "'acc-' || n", "'open'", "jsonb_build_object('currency', 'usd', 'created_us', n)")}
{
    stated(
        "node",
        "'node-' || n",
        "CASE n WHEN 7 THEN 'offline' ELSE 'ready' END",
        "jsonb_build_object('registered_us', 1, 'ssh_host_key', n::text)",
    )
}
{
    stated(
        "allocation",
        "'alloc_' || lpad(n::text, 9, '0')",
        "CASE n WHEN 40000 THEN 'failed' WHEN 40001 THEN 'active' ELSE 'released' END",
        '''jsonb_strip_nulls(jsonb_build_object('account_id', CASE n WHEN 30000 THEN 'small' ELSE 'big' END,
        'node_id', 'node-' || n, 'rate_uminor_per_hour', 1, 'requested_us', n,
        'external_ref', CASE n WHEN 30001 THEN 'order' END,
        'failure_code', CASE n WHEN 40000 THEN 'no_capacity' END,
        'cleanup_pending', CASE n WHEN 30002 THEN true END))''',
    )
}
INSERT INTO debts SELECT 'debt_' || n, 'node-' || n, 'user', 'user:' || n, 'alloc_' || n, NULL, 1, n,
    CASE n WHEN 7 THEN NULL ELSE n END, n {MANY};
INSERT INTO meters SELECT 'mtr_' || lpad(n::text, 9, '0'), 'alloc_' || n, CASE n WHEN 30000 THEN 'small' ELSE 'big' END,
    CASE n WHEN 40000 THEN 'accruing' ELSE 'stopped' END, 1, '1', '0', 1, CASE n WHEN 40000 THEN NULL ELSE 2 END,
    CASE n WHEN 40000 THEN NULL ELSE 'release' END, 1, n {MANY};
INSERT INTO ledger_entries SELECT 'ent_' || lpad(n::text, 9, '0'), CASE n WHEN 30000 THEN 'small' ELSE 'big' END,
    'mtr_' || n,
    CASE n WHEN 40000 THEN 'credit' ELSE 'debit' END, 1, 'usd', n::text, '0', NULL, NULL, n, n {MANY};
{
    stated(
        "notification",
        "'ntf_' || lpad(n::text, 9, '0')",
        "CASE n WHEN 40000 THEN 'parked' WHEN 40001 THEN 'cancelled' ELSE 'sent' END",
        '''jsonb_build_object('account_id', CASE n WHEN 30000 THEN 'small' ELSE 'big' END, 'entity', 'allocation:' || n,
        'kind', CASE n WHEN 40000 THEN 'allocation.failed' ELSE 'allocation.active' END, 'dedupe_key', n::text,
        'audience', 'account', 'created_us', n)''',
    )
}
INSERT INTO outbox SELECT 'evt_' || lpad(n::text, 9, '0'), 'node:' || n, 'AMENDS_EVT', 's', '{{}}', 't', 's', n,
    CASE n WHEN 40000 THEN 'parked' WHEN 40001 THEN 'pending' WHEN 40002 THEN 'skipped' ELSE 'published' END, 0, NULL,
    n, CASE WHEN n IN (40000, 40001) THEN 0 ELSE 202601 END {MANY};
INSERT INTO step SELECT 'step_' || lpad(n::text, 9, '0'), 'node:' || n, 'ssh.probe', 1,
    CASE n WHEN 40000 THEN 'failed' WHEN 40001 THEN 'intended' WHEN 40002 THEN 'unknown' ELSE 'done' END, 'k',
    'node:n1',
    '{{}}', '{{}}', md5(n::text), 's', 1, CASE n WHEN 40001 THEN NULL ELSE 2 END, NULL, '', '', 1, n, '', 0,
    CASE n WHEN 40001 THEN 0 ELSE 202601 END {MANY};
INSERT INTO failure SELECT 'fail_' || lpad(n::text, 9, '0'), md5(n::text), left(md5(n::text), 16), n, 'error', 'low',
    'r', 'm',
    CASE n WHEN 40000 THEN 'rare' ELSE 'ssh_timeout' END, 'c', '', 0, md5(n::text), 1, n {MANY};
INSERT INTO recovery_run SELECT 'run_' || lpad(n::text, 9, '0'), md5(n::text),
    CASE n WHEN 40000 THEN 'R04' ELSE 'R02' END,
    '1', '0', '0', n, 'failure', '', md5(n::text), 's', 'node:' || n, 'x', 1,
    CASE n WHEN 40001 THEN 'failed' WHEN 40002 THEN NULL ELSE 'recovered' END,
    CASE n WHEN 40002 THEN NULL ELSE n END, '{{}}',
    n, n, 1, CASE n WHEN 40002 THEN 0 ELSE 202601 END {MANY};
INSERT INTO recovery_action SELECT 'act_' || n, md5(n::text), 1, n, 'retry', 'w', 't', 'success', 1, '{{}}', '', 1,
    n, n {MANY};
INSERT INTO compensation SELECT 'comp_' || lpad(n::text, 9, '0'), 'act_' || n, md5(n::text), 1, n,
    md5(n::text) || ':' || left(md5(n::text), 16), 'side_effect', 'reverse', 'user:' || n, 'success', 1, '{{}}',
    CASE n WHEN 40000 THEN 'R04' ELSE 'R02' END, n::text, n {MANY};
INSERT INTO audit_log SELECT 'aud_' || lpad(n::text, 9, '0'), n, n,
    CASE n WHEN 40000 THEN 'operator:ann' ELSE 'runtime' END,
    CASE n WHEN 40000 THEN 'rare' ELSE 'a' END, 'node:' || n, NULL, NULL, '', 'req_' || n, 't', md5(n::text), 1,
    '{{}}', '', '', n {MANY};
INSERT INTO ops_case SELECT 'case_' || lpad(n::text, 9, '0'),
    CASE n WHEN 40000 THEN 'unknown_step' ELSE 'cleanup_exhausted' END,
    'node:' || n, 'node:' || n, CASE n WHEN 40001 THEN 'open' ELSE 'resolved' END, n, n, md5(n::text), '[]', '{{}}',
    n {MANY};
INSERT INTO command SELECT 'shop', 'cmd.node.register', 'r', md5(n::text), left(md5(n::text), 16), '', 'node:n1',
    CASE WHEN n % 5 = 0 THEN 409 ELSE 200 END, CASE WHEN n % 5 = 0 THEN 'already_exists' ELSE '' END, n, n, 1, n, ''
    {MANY};
INSERT INTO command_reply SELECT 'shop', n::text, 'h', 'r', md5(n::text), left(md5(n::text), 16), 200, '{{}}', n, n
    {MANY};
ANALYZE;
"""
# What hardly any row has, by column; for the ids and other keys any value will do.
RARE: Mapping[str, tuple[Any, ...]] = {
    "account_id": ("small", "nobody"), "failure_code": ("no_capacity", "none"), "cleanup_pending": (True,),
    "code": ("rare", "none"), "action": ("rare", "none"), "matrix_row": ("R04", "R99"), "final_outcome": ("failed",
    "degraded", None),
    "actor": ("operator:ann", "operator:nobody"), "seq": (5, 0), "entry_type": ("credit", "refund"),
}  # fmt: skip
RARE_OF: Mapping[tuple[str, str], tuple[Any, ...]] = {
    ("node", "state"): ("offline", "draining"), ("allocation", "state"): ("failed", "active", "releasing"),
    ("meter", "state"): ("accruing",), ("notification", "state"): ("parked", "pending", "cancelled"),
    ("outbox", "state"): ("parked", "pending", "skipped"), ("step", "state"): ("failed", "intended", "unknown"),
    ("ops_case", "state"): ("open", "retrying"), ("ops_case", "kind"): ("unknown_step", "none"),
    ("notification", "kind"): ("allocation.failed", "none"), ("debt", "kind"): ("user", "mount"),
}  # fmt: skip


class Explained(ReadSide):
    """A read side that counts the pages its last question has touched."""

    buffers = 0

    async def _fetch(self, query: str, args: Any, asker: Asker, *, once: bool = False) -> list[dict[str, Any]]:
        if ("public_v1" in query or "listed_" in query) and "pg_class" not in query:
            (row,) = await super()._fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}", args, asker, once=once)
            (top,) = row["QUERY PLAN"]
            self.buffers = top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"]
        return await super()._fetch(query, args, asker, once=once)


def wanted(entity: str, column: str) -> tuple[Any, ...]:
    return RARE_OF.get((entity, column)) or RARE.get(column, ("none",))


@pytest.mark.slow
async def test_every_filter_that_is_offered_is_found_by_an_index(database: Database) -> None:
    await database.force(FILL)
    read = Explained(database.dsn, ends=ENDS)
    walked: dict[str, int] = {}
    for entity, filters in FILTERS.items():
        for columns in (*((key,) for key in filters.keys), *filter(None, filters.sets)):
            for value in wanted(entity, columns[-1]):
                # of an account with much in it, which is where a walk would be long
                question = {**dict.fromkeys(columns[:-1], ""), columns[-1]: value}
                for before in columns[:-1]:
                    question[before] = "big" if before == "account_id" else wanted(entity, before)[0]
                for order in ("oldest", "newest"):
                    await read.page(entity, {**question, "order": order}, limit=20)
                    if read.buffers > MAX_BUFFERS:
                        walked[f"{entity} {question} {order}"] = read.buffers
        await read.page(entity, {}, limit=20)
        if read.buffers > MAX_BUFFERS:
            walked[entity] = read.buffers
        await read.page(entity, {"id_prefix": "none_"}, limit=20)
        if read.buffers > MAX_BUFFERS:
            walked[f"{entity} by prefix"] = read.buffers
    await read.aclose()
    assert not walked, "\n".join(f"{k} {v}" for k, v in walked.items())
    await kept_replies_are_found_and_forgotten(database)


async def kept_replies_are_found_and_forgotten(database: Database) -> None:
    """Old keys are looked up one by one in the index; what is forgotten goes a slice at a time, refusals whole."""
    connection = await asyncpg.connect(database.dsn)
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement('kept_replies')}"
    found = await connection.fetchval(explain, ["shop"] * 10, [str(n * 1000) for n in range(10)])
    (top,) = json.loads(found)
    assert top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"] <= MAX_BUFFERS
    refused = "SELECT count(*) FROM command WHERE error_code <> ''"
    assert await database.journal.forget(5001) == 1000
    assert await connection.fetchval(refused) == ROWS // 5, "each has a failure that tells of its span"
    await database.force("DELETE FROM failure")
    while slice_ := await database.journal.forget(20_000):
        assert slice_ <= 1000
    assert await connection.fetchval("SELECT count(*) FROM command_reply") == ROWS - 19_999
    assert await connection.fetchval(refused) == ROWS // 5 - 3999 + 200
    assert await connection.fetchval("SELECT count(*) FROM command WHERE error_code = ''") == ROWS * 4 // 5
    await connection.close()


@pytest.mark.parametrize(
    ("entity", "filters", "field"),
    [
        ("notification", {"audience": "ops"}, "audience"),
        ("allocation", {"rate_uminor_per_hour": 5}, "rate_uminor_per_hour"),
        ("step", {"trace_id": "x"}, "trace_id"),
        ("audit_log", {"reason": "x"}, "reason"),
    ],
)
def test_what_no_index_finds_is_refused_with_what_may_be_asked(
    entity: str, filters: dict[str, Any], field: str
) -> None:
    with pytest.raises(Rejected) as refused:
        check_filters(entity, filters, filters)
    assert (refused.value.code, refused.value.details["field"]) == ("invalid_request", field)
    assert set(refused.value.details["filters"]) >= set(FILTERS[entity].keys)
    assert FILTERS[entity].keys[0] in refused.value.message


def test_every_entity_says_what_it_may_be_listed_by() -> None:
    assert FILTERS.keys() | {"attachment", "namespace", "provider_grant"} == ENTITIES.keys()


async def test_what_takes_too_long_is_cut_off_and_said_so(database: Database) -> None:
    read = ReadSide(database.dsn, timeout_s=2)  # enough for a question of a busy machine
    with pytest.raises(TooSlow, match=r"longer than 2 s"):
        await read._fetch("SELECT pg_sleep(600)", (), Asker("noisy", 1))
    assert await read.rows("violations", asker=Asker("other", 1)) == []
    await read.aclose()
