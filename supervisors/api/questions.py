"""Questions of callers: `qry.<entity>.get` and `.list`, the statement of an account, and who may see what."""

from collections.abc import Iterable, Mapping
from typing import Any

from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint
from amends.values.errors import Rejected
from supervisors.api import endpoints as wire
from supervisors.api.sides import Sides

BY_ACCOUNT = frozenset(("account", "allocation", "meter", "ledger_entry", "payment", "stripe_event", "notification"))
STATEMENT_PAGE = 1000  # entries; so many fit into one reply
NO_EXPONENTS: Mapping[str, int] = {}
Question = dict[str, Any]


class Questions:
    """Answers them. `entities`: those that can be asked for. `exponents`: currency → digits of its minor units."""

    def __init__(self, sides: Sides, entities: Iterable[str], exponents: Mapping[str, int] = NO_EXPONENTS) -> None:
        self._sides, self._exponents = sides, exponents
        self._entities = list(entities)

    def endpoints(self) -> list[Endpoint]:
        """Its subjects."""
        table = [
            Endpoint(subject="qry.account.statement", request=wire.Statement, role="reader", answer=self._statement)
        ]
        for entity in self._entities:
            table += [
                Endpoint(subject=f"qry.{entity}.get", request=wire.ById, role="reader", answer=self._get(entity)),
                Endpoint(subject=f"qry.{entity}.list", request=Question, role="reader", answer=self._list(entity)),
            ]
        return table

    async def columns(self) -> Mapping[str, Mapping[str, str]]:
        """Entity → column → type, as the database has them; raises `Unavailable`."""
        return {entity: await self._sides.columns(entity) for entity in self._entities}

    def _get(self, entity: str) -> Any:
        async def answer(request: wire.ById, identity: Identity) -> dict[str, Any]:
            side, asker = self._sides.of(identity)
            row = await side.get(entity, request.id, asker)
            if not _may_see(identity, entity, row):
                raise Rejected("not_found", f"there is no {entity} {request.id!r}", field="id")
            return row

        return answer

    def _list(self, entity: str) -> Any:
        async def answer(request: Question, identity: Identity) -> dict[str, Any]:
            filters = dict(request)
            limit, cursor = filters.pop("limit", 100), filters.pop("cursor", None)
            if not identity.trusted:
                wanted = filters.get("account_id", identity.accounts[0] if len(identity.accounts) == 1 else None)
                if entity not in BY_ACCOUNT or wanted not in identity.accounts:
                    raise Rejected(
                        "forbidden", "this caller must name one of its own accounts in account_id", field="account_id"
                    )
                filters["account_id"] = wanted
            side, asker = self._sides.of(identity)
            return await side.page(entity, filters, limit, cursor, asker)

        return answer

    async def _statement(self, request: wire.Statement, identity: Identity) -> dict[str, Any]:
        side, asker = self._sides.of(identity)
        if not identity.trusted and request.account_id not in identity.accounts:  # there or not: it is not to be told
            raise Rejected("not_found", f"there is no account {request.account_id!r}", field="account_id")
        account = await side.get("account", request.account_id, asker)
        if not _may_see(identity, "account", account):
            raise Rejected("forbidden", "this caller may not see that account", field="account_id")
        after, until = (request.since_us or 0, ""), (1 << 62) if request.until_us is None else request.until_us
        if request.cursor is not None:
            at_us, _, entry_id = request.cursor.partition(":")
            after = max(after, (int(at_us), entry_id))
        wanted = (request.account_id, *after, until, STATEMENT_PAGE + 1)
        found = await side.rows("statement_entries", *wanted, asker=asker)
        more, entries = len(found) > STATEMENT_PAGE, found[:STATEMENT_PAGE]
        opening = await side.rows("balance_at", request.account_id, *after, asker=asker) if after > (0, "") else []
        balance = await side.rows("balance", request.account_id, asker=asker)
        return {
            "entries": entries, "balance_minor": balance[0]["balance_minor"] if balance else 0,
            "currency": account["currency"],
            "opening_minor": opening[0]["balance_minor"] if opening else 0,
            "minor_unit_exponent": self._exponents.get(account["currency"]),
            "cursor": f"{entries[-1]['created_us']}:{entries[-1]['entry_id']}" if more else None,
        }  # fmt: skip


def _may_see(identity: Identity, entity: str, row: Mapping[str, Any]) -> bool:
    if identity.trusted:
        return True
    return entity in BY_ACCOUNT and row.get("account_id") in identity.accounts
