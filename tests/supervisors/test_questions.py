"""The rooms of the API on a read side of the test's own: who may see what, where it is read, what is answered."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from amends.ports.reading import ANYBODY, CONNECTIONS, Asker
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint
from amends.values.errors import Rejected
from supervisors.api.endpoints import ById, CaseShow, Empty, Export, Statement
from supervisors.api.operators import OperatorQuestions
from supervisors.api.questions import STATEMENT_PAGE, Questions
from supervisors.api.readiness import Readiness
from supervisors.api.sides import Sides
from supervisors.api.traces import EXPORT_BYTES, Span, Traces, TraceVerdict
from supervisors.rental import RENTAL

ONE = Identity("one", ("acme",))
BOTH = Identity("both", ("acme", "beta"))
SHOP = Identity("shop")
OPERATOR = Identity("ann", role="operator")


class Book:
    """A read side with a few rows, which remembers what it was asked, and by whom."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.named: dict[str, list[dict[str, Any]]] = {}
        self.held: dict[tuple[str, str], dict[str, Any]] = {
            ("allocation", "alloc_1"): {"allocation_id": "alloc_1", "account_id": "acme"},
            ("node", "n1"): {"node_id": "n1"},
            ("account", "acme"): {"account_id": "acme", "currency": "usd"},
            ("ops_case", "case_1"): {"case_id": "case_1", "kind": "cleanup_exhausted"},
        }

    async def rows(self, name: str, *args: Any, asker: Asker = ANYBODY) -> list[dict[str, Any]]:
        self.asked.append((name, *args))
        return self.named.get(name, [])

    async def get(self, entity: str, identifier: Any, asker: Asker = ANYBODY) -> dict[str, Any]:
        self.asked.append(("get", entity, identifier, asker))
        if (entity, identifier) not in self.held:
            raise Rejected("not_found", f"there is no {entity} {identifier!r}", field="id")
        return self.held[entity, identifier]

    async def page(
        self, entity: str, filters: Mapping[str, Any], limit: Any, cursor: Any, asker: Asker = ANYBODY
    ) -> dict[str, Any]:
        self.asked.append(("page", entity, dict(filters), limit, cursor, asker))
        return {"items": [], "cursor": None}

    async def columns(self, entity: str) -> Mapping[str, str]:
        return {f"{entity}_id": "text"}


class Rooms:
    """Every room that answers questions, on two read sides."""

    def __init__(self) -> None:
        self.callers, self.operators = Book(), Book()
        self.sides = Sides(self.callers, self.operators)
        self.questions = Questions(self.sides, ("account", "allocation", "node"), {"usd": 2})
        store, policy = SimpleNamespace(counts=lambda: {"node": 2}), SimpleNamespace(crashes=1, quarantined=0)
        engine = SimpleNamespace(store=store, policy=policy, waiting=lambda: 3)
        kernel = SimpleNamespace(engine=engine, matrix=RENTAL.matrix)
        services = SimpleNamespace(tree=lambda: {"name": "amends", "children": [{"name": "lease"}]})
        self.verdict = SimpleNamespace(valid=True, entries=9, head_hash="ab", first_bad_seq=None, problem="")

        async def verify() -> Any:
            return self.verdict

        asked = OperatorQuestions(self.sides, cast(Any, kernel), cast(Any, services), verify)
        table: Sequence[Endpoint] = [*self.questions.endpoints(), *asked.endpoints()]
        self.table = {endpoint.subject: endpoint for endpoint in table}

    def ask(self, subject: str, request: Any, identity: Identity) -> Awaitable[dict[str, Any]]:
        answer = self.table[subject].answer
        assert answer is not None
        return answer(request, identity)

    async def refused(self, subject: str, request: Any, identity: Identity) -> tuple[str, str]:
        with pytest.raises(Rejected) as refused:
            await self.ask(subject, request, identity)
        return refused.value.code, refused.value.message


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


async def test_what_is_somebody_elses_is_not_there(rooms: Rooms) -> None:
    beta = Identity("two", ("beta",))
    assert (await rooms.ask("qry.allocation.get", ById(id="alloc_1"), ONE))["account_id"] == "acme"
    somebodys = await rooms.refused("qry.allocation.get", ById(id="alloc_1"), beta)
    assert somebodys == ("not_found", "there is no allocation 'alloc_1'")
    assert (await rooms.refused("qry.allocation.get", ById(id="alloc_9"), beta))[0] == "not_found"
    assert (await rooms.refused("qry.node.get", ById(id="n1"), beta))[0] == "not_found"
    # an account that is another's and one that nobody has are told apart by nothing
    for account in ("acme", "nobody"):
        refused = await rooms.refused("qry.account.statement", Statement(account_id=account), beta)
        assert refused == ("not_found", f"there is no account '{account}'")
    assert await rooms.ask("qry.node.get", ById(id="n1"), SHOP) == {"node_id": "n1"}


async def test_a_list_is_of_ones_own_account_and_who_has_several_names_one(rooms: Rooms) -> None:
    await rooms.ask("qry.allocation.list", {"state": "active", "limit": 7}, ONE)
    own = {"state": "active", "account_id": "acme"}
    assert rooms.callers.asked == [("page", "allocation", own, 7, None, Asker("one", 1))]
    for request, identity in (({}, BOTH), ({"account_id": "beta"}, ONE)):
        assert (await rooms.refused("qry.allocation.list", request, identity))[0] == "forbidden"
    assert (await rooms.refused("qry.node.list", {"account_id": "acme"}, ONE))[0] == "forbidden"
    await rooms.ask("qry.node.list", {}, SHOP)


async def test_a_statement_has_entries_balance_and_currency(rooms: Rooms) -> None:
    rooms.callers.named = {
        "statement_entries": [{"entry_id": "e1"}], "balance": [{"balance_minor": -5}],
        "balance_at": [{"balance_minor": 7}],
    }  # fmt: skip
    found = await rooms.ask("qry.account.statement", Statement(account_id="acme", since_us=3), ONE)
    assert found == {
        "entries": [{"entry_id": "e1"}], "balance_minor": -5, "currency": "usd", "opening_minor": 7,
        "minor_unit_exponent": 2, "cursor": None,
    }  # fmt: skip
    assert rooms.callers.asked[1] == ("statement_entries", "acme", 3, "", 1 << 62, STATEMENT_PAGE + 1)
    assert rooms.callers.asked[2] == ("balance_at", "acme", 3, "")


async def test_a_long_statement_is_read_page_by_page(rooms: Rooms) -> None:
    entries = [{"entry_id": f"e{number}", "created_us": number} for number in range(STATEMENT_PAGE + 1)]
    rooms.callers.named = {"statement_entries": entries, "balance": [{"balance_minor": 0}]}
    first = await rooms.ask("qry.account.statement", Statement(account_id="acme"), ONE)
    last = STATEMENT_PAGE - 1
    assert (first["entries"], first["cursor"], first["opening_minor"]) == (entries[:-1], f"{last}:e{last}", 0)
    assert [name for name, *_ in rooms.callers.asked] == ["get", "statement_entries", "balance"]
    rooms.callers.named |= {"statement_entries": entries[-1:], "balance_at": [{"balance_minor": -9}]}
    rooms.callers.asked.clear()
    following = Statement(account_id="acme", since_us=3, cursor=first["cursor"])
    rest = await rooms.ask("qry.account.statement", following, ONE)
    assert (rest["entries"], rest["cursor"], rest["opening_minor"]) == (entries[-1:], None, -9)
    wanted = ("statement_entries", "acme", last, f"e{last}", 1 << 62, STATEMENT_PAGE + 1)
    assert rooms.callers.asked[1:3] == [wanted, ("balance_at", "acme", last, f"e{last}")]


async def test_the_slow_questions_of_callers_are_not_the_operators_wait(rooms: Rooms) -> None:
    await rooms.ask("qry.node.get", ById(id="n1"), SHOP)
    await rooms.ask("qry.node.get", ById(id="n1"), OPERATOR)
    most = CONNECTIONS - 1  # one is left for the others, even by those who are trusted
    assert rooms.callers.asked == [("get", "node", "n1", Asker("shop", most))]
    assert rooms.operators.asked == [("get", "node", "n1", Asker("ann", most))]


async def test_the_columns_are_those_of_the_views(rooms: Rooms) -> None:
    assert await rooms.questions.columns() == {
        "account": {"account_id": "text"}, "allocation": {"allocation_id": "text"}, "node": {"node_id": "text"},
    }  # fmt: skip


async def test_operators_are_shown_tree_matrix_audit_and_cases(rooms: Rooms) -> None:
    tree = (await rooms.ask("ops.tree.show", Empty(), OPERATOR))["tree"]
    assert [child["name"] for child in tree["children"]] == ["lease", "entities"]
    assert tree["children"][1]["children"][0]["in_memory"] == 2
    rooms.operators.named["matrix_counts"] = [{"matrix_row": "R02", "runs": 4, "recovered": 4}]
    matrix = await rooms.ask("ops.matrix.show", Empty(), OPERATOR)
    assert matrix["sha256"] == RENTAL.matrix.sha256
    (row,) = [row for row in matrix["rows"] if row["id"] == "R02"]
    assert (row["runs"], row["failed"]) == (4, 0)
    good = await rooms.ask("ops.audit.verify", Empty(), OPERATOR)
    assert good == {"valid": True, "entries": 9, "head_hash": "ab"}
    rooms.verdict = SimpleNamespace(valid=False, entries=3, head_hash="ab", first_bad_seq=4, problem="gone")
    bad = await rooms.ask("ops.audit.verify", Empty(), OPERATOR)
    assert (bad["first_bad_seq"], bad["problem"]) == (4, "gone")
    case = await rooms.ask("ops.case.show", CaseShow(case_id="case_1"), OPERATOR)
    assert case["runbook"].startswith("# ")


@pytest.mark.parametrize("part", ["", "postgres", "nats", "journal", "detector"])
def test_a_runtime_is_ready_when_no_part_has_a_trouble(part: str) -> None:
    lease, writer = SimpleNamespace(may_act=lambda: part != "postgres"), SimpleNamespace(trouble="")
    if part == "journal":
        writer.trouble = "the table is locked"
    kernel, detector = SimpleNamespace(lease=lease, writer=writer), SimpleNamespace(blind=part == "detector")
    checks = Readiness(cast(Any, kernel), cast(Any, detector), lambda: part != "nats").checks()
    assert [name for name, problem in checks.items() if problem] == ([part] if part else [])


class Recorded:
    """Spans of any trace: one, of so many bytes."""

    def __init__(self, size: int) -> None:
        self.size = size

    async def of(self, trace_ids: Sequence[str]) -> list[Span]:
        return [{"trace_id": trace_id, "name": "x" * self.size} for trace_id in trace_ids]

    def jaeger(self, spans: Sequence[Span]) -> dict[str, Any]:
        return {"data": list(spans)}

    async def leading_on(self, trace_ids: set[str], read: Any) -> tuple[list[Span], bool]:
        return await read(sorted(trace_ids)), True


def traces(recorded: Recorded, verify: Any = None) -> dict[str, Any]:
    """The answers of the room by subject, over six recoveries."""
    book = Book()
    book.named["recent_recoveries"] = [
        {"recovery_trace_id": f"{number}r", "original_trace_id": f"{number}o"} for number in range(6)
    ]
    room = Traces(cast(Any, recorded), cast(Any, recorded), book, verify)
    return {endpoint.subject: endpoint.answer for endpoint in room.endpoints()}


@pytest.mark.parametrize(("size", "told"), [(10, 6), (EXPORT_BYTES // 8, 3), (EXPORT_BYTES, 1)])
async def test_as_many_recoveries_are_exported_as_a_reply_has_room_for(size: int, told: int) -> None:
    found = await traces(Recorded(size))["ops.trace.export"](Export(limit=6), OPERATOR)
    assert (found["recoveries"], found["truncated"]) == (told, told < 6)
    assert len(found["traces"]["data"]) == told * 2


async def test_a_trace_that_no_reply_holds_is_refused_and_told_where_it_is() -> None:
    answer = traces(Recorded(EXPORT_BYTES))["ops.trace.export"]
    with pytest.raises(Rejected, match="/api/traces"):
        await answer(Export(trace_id="a" * 32), OPERATOR)


async def test_one_proof_of_the_traces_at_a_time() -> None:
    go = asyncio.Event()

    async def verify() -> TraceVerdict:
        await go.wait()
        return TraceVerdict(compensations=2, spans=5)

    answer = traces(Recorded(1), verify)["ops.trace.verify"]
    first = asyncio.create_task(answer(Empty(), OPERATOR))
    await asyncio.sleep(0)
    with pytest.raises(Rejected, match="under way"):
        await answer(Empty(), OPERATOR)
    go.set()
    assert await first == {"valid": True, "compensations": 2, "spans": 5, "differences": []}
