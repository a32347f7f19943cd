"""What others see of a runtime beside commands: queries, the tree, the matrix, cases, `endpoints.json`."""

import asyncio
import json
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adapters.http.jaeger import jaeger_routes
from adapters.http.metrics import Metric
from adapters.http.server import HttpServer, InUse
from adapters.postgres.audit import verify_audit
from adapters.postgres.reading import CONNECTIONS, ENTITIES, Asker, ReadSide
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint
from amends.runtime.trunk import ChildSpec
from amends.values.errors import Rejected
from supervisors.api import endpoints as wire
from supervisors.boot.files import write_private
from supervisors.boot.metrics import metrics
from supervisors.boot.standby import listen_late
from supervisors.boot.traces import Traces
from supervisors.runbooks import runbook

if TYPE_CHECKING:
    from supervisors.boot.runtime import Runtime

log = logging.getLogger("amends.boot")
BY_ACCOUNT = frozenset(("account", "allocation", "meter", "ledger_entry", "notification"))
Question = dict[str, Any]
QUESTION_S = 5.0  # for one question in the database, and for its turn there


class Front:
    """The read side of one runtime."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        role = runtime.role
        self.read = ReadSide(runtime.servers.dsn, role=role)  # pages, spans, proofs
        # Callers and operators have connections of their own: the slow questions of one are not the other's wait.
        self._callers = ReadSide(runtime.servers.dsn, timeout_s=QUESTION_S, role=role)
        self._operators = ReadSide(runtime.servers.dsn, timeout_s=QUESTION_S, role=role)
        settings, kernel = runtime.settings, runtime.kernel
        self.traces = Traces(self.read, runtime.journal, runtime.otlp)
        kernel.engine.listeners.append(self.traces.follow)
        self.http = HttpServer(
            settings.http.listen, checks=self._checks, metrics=self._metrics, authorise=runtime.gate.may_look,
            guarded=jaeger_routes(self.traces),
        )  # fmt: skip

    async def start(self) -> None:
        """Open what answers questions; after a take-over the replaced one may still hold the address."""
        try:
            await self.http.start()
        except InUse as error:
            if not self._runtime.took_over:
                raise
            log.warning("%s; it is tried again until it is free", error)

    async def stop(self) -> None:
        """Close it."""
        await self.http.stop()
        for side in (self.read, self._callers, self._operators):
            await side.aclose()

    def children(self) -> Sequence[ChildSpec]:
        """Services for the supervision tree."""
        return (self.traces.child(), ChildSpec(name="http", run=self._listen, detail=lambda: {"url": self.http.url}))

    async def _listen(self) -> None:
        """The server listens by itself; a late one is still to be told to those who look for it."""
        if not self.http.url:
            await listen_late(self.http)
            await self.write_endpoints()
        await asyncio.Event().wait()

    def _checks(self) -> dict[str, str | None]:
        """`/readyz`: what is wrong with each part, None for nothing."""
        runtime = self._runtime
        kernel = runtime.kernel
        blind = "no heartbeat can be heard: nobody is judged" if runtime.detector.blind else None
        return {
            "postgres": None if kernel.lease.may_act() else "the lease was not renewed for 5 s",
            "nats": None if runtime.nats.is_connected else "not connected",
            "journal": kernel.writer.trouble or None,
            "detector": blind,
        }

    def _metrics(self) -> list[Metric]:
        return metrics(self._runtime)

    # --- questions -----------------------------------------------------------------------------------

    def endpoints(self) -> list[Endpoint]:
        """Questions callers and operators may ask."""
        table = [
            Endpoint(subject="ops.tree.show", request=wire.Empty, role="viewer", answer=self._tree),
            Endpoint(subject="ops.matrix.show", request=wire.Empty, role="viewer", answer=self._matrix),
            Endpoint(subject="ops.audit.verify", request=wire.Empty, role="viewer", answer=self._audit),
            Endpoint(subject="ops.trace.verify", request=wire.Empty, role="viewer", answer=self._verify_traces),
            Endpoint(subject="ops.trace.export", request=wire.Export, role="viewer", answer=self._export_traces),
            Endpoint(subject="ops.case.list", request=Question, role="viewer", answer=self._cases),
            Endpoint(subject="ops.case.show", request=wire.CaseShow, role="viewer", answer=self._case),
            Endpoint(subject="qry.account.statement", request=wire.Statement, role="reader", answer=self._statement),
        ]
        for entity in ENTITIES:
            if entity in NOT_BUILT:
                continue
            table.append(
                Endpoint(subject=f"qry.{entity}.get", request=wire.ById, role="reader", answer=self._get(entity))
            )
            table.append(
                Endpoint(subject=f"qry.{entity}.list", request=Question, role="reader", answer=self._list(entity))
            )
        return table

    def _side(self, identity: Identity) -> tuple[ReadSide, Asker]:
        """Where this one's questions are read, and as whom it takes its turn there."""
        side = self._operators if identity.operates else self._callers
        return side, Asker(identity.name, CONNECTIONS - 1 if identity.trusted else 1)

    def _get(self, entity: str) -> Any:
        async def answer(request: wire.ById, identity: Identity) -> dict[str, Any]:
            side, asker = self._side(identity)
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
            side, asker = self._side(identity)
            return await side.page(entity, filters, limit, cursor, asker)

        return answer

    async def _statement(self, request: wire.Statement, identity: Identity) -> dict[str, Any]:
        side, asker = self._side(identity)
        if not identity.trusted and request.account_id not in identity.accounts:  # there or not: it is not to be told
            raise Rejected("not_found", f"there is no account {request.account_id!r}", field="account_id")
        account = await side.get("account", request.account_id, asker)
        if not _may_see(identity, "account", account):
            raise Rejected("forbidden", "this caller may not see that account", field="account_id")
        since, until = request.since_us or 0, request.until_us or (1 << 62)
        entries = await side.rows("statement_entries", request.account_id, since, until, asker=asker)
        balance = await side.rows("balance", request.account_id, asker=asker)
        return {"entries": entries, "balance_minor": balance[0]["balance_minor"], "currency": account["currency"]}

    async def _tree(self, request: Any, identity: Identity) -> dict[str, Any]:
        return {"tree": self._runtime.tree()}

    async def _matrix(self, request: Any, identity: Identity) -> dict[str, Any]:
        matrix = self._runtime.kernel.matrix
        side, asker = self._side(identity)
        counts = {row["matrix_row"]: row for row in await side.rows("matrix_counts", asker=asker)}
        rows = []
        for row in matrix.rows:
            found = counts.get(row.id, {})
            numbers = {key: found.get(key, 0) for key in ("runs", "recovered", "degraded", "failed", "open")}
            rows.append({"id": row.id, "name": row.name, "status": row.status, "entity": row.entity, **numbers})
        return {"version": matrix.version, "sha256": matrix.sha256, "rows": rows}

    async def _audit(self, request: Any, identity: Identity) -> dict[str, Any]:
        verdict = await verify_audit(self._runtime.servers.dsn)
        found = {"valid": verdict.valid, "entries": verdict.entries, "head_hash": verdict.head_hash}
        return found | ({} if verdict.valid else {"first_bad_seq": verdict.first_bad_seq, "problem": verdict.problem})

    async def _verify_traces(self, request: Any, identity: Identity) -> dict[str, Any]:
        return await self.traces.verify()

    async def _export_traces(self, request: wire.Export, identity: Identity) -> dict[str, Any]:
        if request.trace_id is not None:
            return await self.traces.of_trace(request.trace_id)
        return await self.traces.of_recoveries(request.limit)

    async def _cases(self, request: Question, identity: Identity) -> dict[str, Any]:
        filters = dict(request)
        limit, cursor = filters.pop("limit", 100), filters.pop("cursor", None)
        side, asker = self._side(identity)
        return await side.page("ops_case", filters, limit, cursor, asker)

    async def _case(self, request: wire.CaseShow, identity: Identity) -> dict[str, Any]:
        side, asker = self._side(identity)
        case = await side.get("ops_case", request.case_id, asker)
        return {"case": case, "runbook": runbook(f"{case['kind']}.md") or ""}

    # --- the file that says where everything is ------------------------------------------------------

    async def write_endpoints(self) -> None:
        """`endpoints.json`, mode 0600, written whole or not at all."""
        runtime = self._runtime
        body = {
            "postgres_dsn": await runtime.servers.reader_dsn(runtime.state_dir / "reader.password"),
            "nats_url": runtime.servers.local_nats_url,
            "http_url": self.http.url,
            "operator_token": runtime.operator_token,
            "ssh_public_key": runtime.key.public,
            "pid": os.getpid(),
        }
        write_private(runtime.state_dir / "endpoints.json", json.dumps(body, indent=1))


NOT_BUILT = frozenset(("attachment", "namespace", "provider_grant"))


def _may_see(identity: Identity, entity: str, row: dict[str, Any]) -> bool:
    if identity.trusted:
        return True
    return entity in BY_ACCOUNT and row.get("account_id") in identity.accounts
