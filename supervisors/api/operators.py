"""Questions of operators: the supervision tree, the matrix with its counts, the audit chain, cases and runbooks."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from amends.kernel import Kernel
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint
from supervisors.api import endpoints as wire
from supervisors.api.questions import Question
from supervisors.api.services import Services
from supervisors.api.sides import Sides
from supervisors.runbooks import runbook


class AuditVerdict(Protocol):
    """What the audit chain is worth; where it is not valid, `first_bad_seq` and `problem` say where and why."""

    @property
    def valid(self) -> bool:
        """Whether it holds from the first entry to the journal's head."""
        ...

    @property
    def entries(self) -> int:
        """How many were verified."""
        ...

    @property
    def head_hash(self) -> str:
        """The hash of the last one."""
        ...

    @property
    def first_bad_seq(self) -> int | None:
        """The first that does not fit."""
        ...

    @property
    def problem(self) -> str:
        """What is wrong with it."""
        ...


AuditProof = Callable[[], Awaitable[AuditVerdict]]


class OperatorQuestions:
    """Answers them. `verify_audit` reads the whole chain; raises `Unavailable`."""

    def __init__(self, sides: Sides, kernel: Kernel, services: Services, verify_audit: AuditProof) -> None:
        self._sides, self._kernel, self._services, self._verify_audit = sides, kernel, services, verify_audit

    def endpoints(self) -> list[Endpoint]:
        """Its subjects."""
        return [
            Endpoint(subject="ops.tree.show", request=wire.Empty, role="viewer", answer=self._tree),
            Endpoint(subject="ops.matrix.show", request=wire.Empty, role="viewer", answer=self._matrix),
            Endpoint(subject="ops.audit.verify", request=wire.Empty, role="viewer", answer=self._audit),
            Endpoint(subject="ops.case.list", request=Question, role="viewer", answer=self._cases),
            Endpoint(subject="ops.case.show", request=wire.CaseShow, role="viewer", answer=self._case),
        ]

    async def _tree(self, request: Any, identity: Identity) -> dict[str, Any]:
        """The live supervision tree, entities counted under their supervisor."""
        services, engine = self._services.tree(), self._kernel.engine
        entities = [
            {"name": kind, "state": "supervised", "in_memory": count, "restarts": 0}
            for kind, count in engine.store.counts().items()
        ]
        entity_tree = {
            "name": "entities", "strategy": "one_for_one", "children": entities, "crashes": engine.policy.crashes,
            "quarantined_messages": engine.policy.quarantined, "mailboxes": engine.waiting(),
        }  # fmt: skip
        return {"tree": {**services, "children": [*services.get("children", []), entity_tree]}}

    async def _matrix(self, request: Any, identity: Identity) -> dict[str, Any]:
        matrix = self._kernel.matrix
        side, asker = self._sides.of(identity)
        counts = {row["matrix_row"]: row for row in await side.rows("matrix_counts", asker=asker)}
        rows = []
        for row in matrix.rows:
            found = counts.get(row.id, {})
            numbers = {key: found.get(key, 0) for key in ("runs", "recovered", "degraded", "failed", "open")}
            rows.append({"id": row.id, "name": row.name, "status": row.status, "entity": row.entity, **numbers})
        return {"version": matrix.version, "sha256": matrix.sha256, "rows": rows}

    async def _audit(self, request: Any, identity: Identity) -> dict[str, Any]:
        verdict = await self._verify_audit()
        found = {"valid": verdict.valid, "entries": verdict.entries, "head_hash": verdict.head_hash}
        return found | ({} if verdict.valid else {"first_bad_seq": verdict.first_bad_seq, "problem": verdict.problem})

    async def _cases(self, request: Question, identity: Identity) -> dict[str, Any]:
        filters = dict(request)
        limit, cursor = filters.pop("limit", 100), filters.pop("cursor", None)
        side, asker = self._sides.of(identity)
        return await side.page("ops_case", filters, limit, cursor, asker)

    async def _case(self, request: wire.CaseShow, identity: Identity) -> dict[str, Any]:
        side, asker = self._sides.of(identity)
        case = await side.get("ops_case", request.case_id, asker)
        return {"case": case, "runbook": runbook(f"{case['kind']}.md") or ""}
