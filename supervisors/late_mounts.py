"""Mount tasks that were given up: where one is done after all, its attachment hears of it (R12)."""

import logging
from collections import OrderedDict

from actors.between import LateMount
from amends.ports.steps import Outcome, StepCall, StepRunner
from amends.runtime.engine import Engine
from amends.turn.messages import Envelope
from amends.values import ids
from amends.values.errors import Rejected

log = logging.getLogger("amends.late_mounts")
MOUNT = "agent.mount"
KEPT = 4096  # tasks that were given up; the runtime that sent them must still run


class LateMounts:
    """Implements `amends.ports.steps.StepRunner` for `agent.*` on `steps`, which tells `came` of late results.

    Late is what comes after no result in time, and what contradicts an error.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._given_up: OrderedDict[str, str] = OrderedDict()  # task → attachment
        self.steps: StepRunner

    async def run(self, call: StepCall) -> Outcome:
        """As `steps` does; a mount that nobody knows the end of is kept in mind."""
        outcome = await self.steps.run(call)
        if call.name == MOUNT and outcome.kind != "done":
            self._given_up[f"task_{ids.suffix(call.step_id)}"] = call.args["attachment_id"]
            while len(self._given_up) > KEPT:
                self._given_up.popitem(last=False)
        return outcome

    def came(self, node_id: str, task_id: str, outcome: Outcome) -> None:
        """A result that nobody waits for any more."""
        if outcome.kind != "done" or (attachment_id := self._given_up.pop(task_id, None)) is None:
            return
        try:
            self._engine.tell("attachment", attachment_id, Envelope(LateMount(task_id)))
        except Rejected as error:
            log.warning("the late mount %s of %s on %s was not taken up: %s", task_id, attachment_id, node_id, error)
