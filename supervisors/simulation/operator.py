"""The operator of a random world: looks at the open cases now and then, and does what their runbooks say."""

import asyncio
import random
from collections import Counter
from typing import Any, Final

import msgspec

from supervisors.simulation.chronicle import Chronicle
from supervisors.simulation.weather import Weather
from supervisors.simulation.world import Refused, Running

LOOKS: Final = 4.0  # paces between two looks
ACTS: Final = 0.5  # share of the cases that are settled at a look, while there are faults
BACK: Final = ("host_key_mismatch", "node_flapping", "setup_failing", "identity_conflict", "restored_unknown",
               "reconcile_stalled")  # fmt: skip
THEMSELVES: Final = ("mass_offline", "agent_silent")  # end when the nodes are heard again
CLEANUPS: Final = ("cleanup_exhausted", "lockout_failed")
Ask = tuple[str, dict[str, Any]]


class Operator:
    """See above; who it is outlives runtimes, and so do its keys."""

    def __init__(self, chronicle: Chronicle, weather: Weather, *, seed: str) -> None:
        self._chronicle, self._weather = chronicle, weather
        self._chance = random.Random(seed)  # noqa: S311 - a simulated world's
        self._tries = Counter[str]()

    async def work(self, running: Running) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOKS * self._weather.pace_s)
            await self.settle(running, ACTS)

    async def settle(self, running: Running, share: float = 1.0) -> None:
        """Do what settles them, of that share of the open cases."""
        rows = running.world.database.tables.rows["ops_case"].values()
        for case in sorted((row for row in rows if row["state"] == "open"), key=lambda row: row["case_id"]):
            if case["kind"] not in THEMSELVES and self._chance.random() < share:
                await self._settle(running, case)

    async def _settle(self, running: Running, case: dict[str, Any]) -> None:
        for subject, body in asked_for(running, case):
            number = self._tries[case["case_id"]] = self._tries[case["case_id"]] + 1
            self._chronicle.note(f"operator {subject} for {case['kind']} of {case['target_ref']}")
            try:
                await running.ask(subject, f"{case['case_id']}/{number}", **body, reason="it has been mended")
            except Refused as refused:
                self._chronicle.note(f"operator is refused: {refused.code}")


def asked_for(running: Running, case: dict[str, Any]) -> list[Ask]:
    """The command of a case's runbook, with what it says."""
    kind, (of, _, name) = case["kind"], case["entity"].partition(":")
    evidence = msgspec.json.decode(case["evidence"])
    if kind in CLEANUPS and of == "allocation":
        return [("ops.cleanup.retry", {"allocation_id": name})]
    if kind in BACK:
        return [("ops.node.return_to_service", {"node_id": name, "acknowledge_dirty": True})]
    if kind == "detach_failed" and of == "attachment":
        return [("ops.attachment.retry_detach", {"attachment_id": name})]
    if kind == "provider_drift":
        body = running.body(of, name)
        node, namespace = evidence.get("node_id") or body.get("node_id"), body.get("namespace_id", name)
        return [("ops.provider.reconcile", {"namespace_id": namespace, "node_id": node})]
    if kind == "stripe_mirror_failed":
        return [("ops.account.retry_mirror", {"account_id": name})]
    if kind == "outbox_poison":
        return [("ops.outbox.redispatch", {"outbox_id": case["target_ref"].partition(":")[2]})]
    return [("ops.case.resolve", {"case_id": case["case_id"]})]
