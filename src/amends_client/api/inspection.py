"""Questions of operators, and the cases that they settle.

Written by `python -m tools.client`: change the tables that it reads, not this file.
"""

from collections.abc import Mapping
from typing import Any, Literal, Unpack

import msgspec

from amends_client.api.answers import (
    AuditVerifyAnswer,
    CaseShowAnswer,
    LedgerVerifyAnswer,
    MatrixShowAnswer,
    PolicyBacktestAnswer,
    PolicyEvaluateAnswer,
    PolicyShowAnswer,
    TraceExportAnswer,
    TraceVerifyAnswer,
    TreeShowAnswer,
    WhatifAnswer,
)
from amends_client.api.kinds import OPS_CASE
from amends_client.api.rows import OpsCase
from amends_client.calls import Calls, CommandOptions, given
from amends_client.reading import Rows


class CaseOps(Rows[OpsCase]):
    """`ops.case`."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls, OPS_CASE)

    async def resolve(self, *, case_id: str, reason: str, **options: Unpack[CommandOptions]) -> OpsCase:
        """Close a case that owes nothing (for operators).

        `case_id`: the case.
        """
        reply = await self._calls.command("ops.case.resolve", given(case_id=case_id, reason=reason), options)
        return OPS_CASE.row_of((reply.data or {})["ops_case"])

    async def acknowledge(self, *, case_id: str, reason: str, **options: Unpack[CommandOptions]) -> OpsCase:
        """Say that somebody looks after it (for operators).

        `case_id`: the case.
        """
        reply = await self._calls.command("ops.case.acknowledge", given(case_id=case_id, reason=reason), options)
        return OPS_CASE.row_of((reply.data or {})["ops_case"])

    async def show(self, *, case_id: str, deadline_s: float | None = None) -> CaseShowAnswer:
        """One case and its runbook (for operators and viewers)."""
        answer = await self._calls.ask("ops.case.show", given(case_id=case_id), deadline_s, long=True)
        return msgspec.convert(answer, CaseShowAnswer)


class TreeOps:
    """`ops.tree`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def show(self, *, deadline_s: float | None = None) -> TreeShowAnswer:
        """The live supervision tree (for operators and viewers)."""
        answer = await self._calls.ask("ops.tree.show", {}, deadline_s, long=True)
        return msgspec.convert(answer, TreeShowAnswer)


class MatrixOps:
    """`ops.matrix`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def show(self, *, deadline_s: float | None = None) -> MatrixShowAnswer:
        """The rows of the matrix with counts and outcomes (for operators and viewers)."""
        answer = await self._calls.ask("ops.matrix.show", {}, deadline_s, long=True)
        return msgspec.convert(answer, MatrixShowAnswer)


class AuditOps:
    """`ops.audit`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def verify(self, *, deadline_s: float | None = None) -> AuditVerifyAnswer:
        """Check the chain of the audit log (for operators and viewers)."""
        answer = await self._calls.ask("ops.audit.verify", {}, deadline_s, long=True)
        return msgspec.convert(answer, AuditVerifyAnswer)


class PolicyOps:
    """`ops.policy`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def show(self, *, sha256: str | None = None, deadline_s: float | None = None) -> PolicyShowAnswer:
        """The credit policy in force, or one that was, by its hash (for operators and viewers)."""
        answer = await self._calls.ask("ops.policy.show", given(sha256=sha256), deadline_s, long=True)
        return msgspec.convert(answer, PolicyShowAnswer)

    async def evaluate(
        self,
        *,
        rate_uminor_per_hour: int,
        started_us: int,
        cause: Literal["force_release", "node_offline", "node_rebooted", "release"],
        stop_us: int,
        posted_through_us: int,
        reason: str | None = None,
        prior_credits: int | None = None,
        later_cause: Literal["force_release", "node_offline", "node_rebooted", "release"] | None = None,
        later_stop_us: int | None = None,
        deadline_s: float | None = None,
    ) -> PolicyEvaluateAnswer:
        """What the policy makes of an end; nothing is written (for operators and viewers)."""
        answer = await self._calls.ask(
            "ops.policy.evaluate",
            given(
                rate_uminor_per_hour=rate_uminor_per_hour,
                started_us=started_us,
                cause=cause,
                stop_us=stop_us,
                posted_through_us=posted_through_us,
                reason=reason,
                prior_credits=prior_credits,
                later_cause=later_cause,
                later_stop_us=later_stop_us,
            ),
            deadline_s,
            long=True,
        )
        return msgspec.convert(answer, PolicyEvaluateAnswer)

    async def backtest(
        self, *, toml: str, since_us: int, cursor: str | None = None, deadline_s: float | None = None
    ) -> PolicyBacktestAnswer:
        """What another policy would have charged and credited (for operators and viewers).

        With a `cursor` in the answer, ask again with it.
        """
        answer = await self._calls.ask(
            "ops.policy.backtest", given(toml=toml, since_us=since_us, cursor=cursor), deadline_s, long=True
        )
        return msgspec.convert(answer, PolicyBacktestAnswer)


class TraceOps:
    """`ops.trace`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def verify(self, *, deadline_s: float | None = None) -> TraceVerifyAnswer:
        """Compare compensation records with their spans (for operators and viewers)."""
        answer = await self._calls.ask("ops.trace.verify", {}, deadline_s, long=True)
        return msgspec.convert(answer, TraceVerifyAnswer)

    async def export(
        self, *, limit: int | None = None, trace_id: str | None = None, deadline_s: float | None = None
    ) -> TraceExportAnswer:
        """The spans of the newest recovery runs, or of one trace, as Jaeger writes them (for operators and viewers)."""
        answer = await self._calls.ask("ops.trace.export", given(limit=limit, trace_id=trace_id), deadline_s, long=True)
        return msgspec.convert(answer, TraceExportAnswer)


class LedgerOps:
    """`ops.ledger`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def verify(
        self, *, account_id: str | None = None, cursor: str | None = None, deadline_s: float | None = None
    ) -> LedgerVerifyAnswer:
        """Reckon every meter, payment and balance anew, and compare (for operators and viewers).

        With a `cursor` in the answer, ask again with it.
        """
        answer = await self._calls.ask(
            "ops.ledger.verify", given(account_id=account_id, cursor=cursor), deadline_s, long=True
        )
        return msgspec.convert(answer, LedgerVerifyAnswer)


class WhatifOps:
    """`ops.whatif`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def node_loss(self, *, node_id: str, deadline_s: float | None = None) -> WhatifAnswer:
        """What the loss of a node would undo, credit and tell; nothing is written (for operators and viewers)."""
        answer = await self._calls.ask("ops.whatif.node_loss", given(node_id=node_id), deadline_s, long=True)
        return msgspec.convert(answer, WhatifAnswer)

    async def force_release(
        self, *, allocation_id: str, reason_code: str | None = None, deadline_s: float | None = None
    ) -> WhatifAnswer:
        """What a forced release would undo, credit and tell; nothing is written (for operators and viewers)."""
        answer = await self._calls.ask(
            "ops.whatif.force_release",
            given(allocation_id=allocation_id, reason_code=reason_code),
            deadline_s,
            long=True,
        )
        return msgspec.convert(answer, WhatifAnswer)

    async def node_retire(
        self, *, node_id: str, acknowledge_lost: bool | None = None, deadline_s: float | None = None
    ) -> WhatifAnswer:
        """What retiring a node would give up, or why it is refused; nothing is written (for operators and viewers)."""
        answer = await self._calls.ask(
            "ops.whatif.node_retire", given(node_id=node_id, acknowledge_lost=acknowledge_lost), deadline_s, long=True
        )
        return msgspec.convert(answer, WhatifAnswer)

    async def command(self, *, subject: str, data: Mapping[str, Any], deadline_s: float | None = None) -> WhatifAnswer:
        """What a command would come to, or why it is refused; nothing is written (for operators and viewers)."""
        answer = await self._calls.ask("ops.whatif.command", given(subject=subject, data=data), deadline_s, long=True)
        return msgspec.convert(answer, WhatifAnswer)
