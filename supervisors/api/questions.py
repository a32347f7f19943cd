"""Questions of callers: `qry.<entity>.get` and `.list`, the statement of an account, and who may see what."""

from collections.abc import Iterable, Mapping
from typing import Any

from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint
from amends.values.errors import Rejected
from supervisors.api import endpoints as wire
from supervisors.api.sides import Sides

BY_ACCOUNT = frozenset(("account", "allocation", "meter", "ledger_entry", "notification"))
NOT_BUILT = frozenset(("attachment", "namespace", "provider_grant"))
Question = dict[str, Any]


class Questions:
    """Answers them. `entities`: those that can be asked for."""

    def __init__(self, sides: Sides, entities: Iterable[str]) -> None:
        self._sides = sides
        self._entities = [entity for entity in entities if entity not in NOT_BUILT]

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
        since, until = request.since_us or 0, request.until_us or (1 << 62)
        entries = await side.rows("statement_entries", request.account_id, since, until, asker=asker)
        balance = await side.rows("balance", request.account_id, asker=asker)
        return {"entries": entries, "balance_minor": balance[0]["balance_minor"], "currency": account["currency"]}


def _may_see(identity: Identity, entity: str, row: Mapping[str, Any]) -> bool:
    if identity.trusted:
        return True
    return entity in BY_ACCOUNT and row.get("account_id") in identity.accounts
