"""How steps end on a stage: well and at once, but for those on a node that is lost, which do not end.

What they answer is what the actors read of it. A step whose answer nobody can foretell does not end either.
"""

from collections.abc import Mapping
from typing import Any, Final

from actors.grant.state import GrantState, grant_of
from amends.domain.steps import StepSpec
from amends.ports.steps import Outcome
from amends.runtime.engine import Engine
from amends.values.records import StepRow
from supervisors.pool import Pool, node_of

NO_ANSWER: Final = frozenset(("provider.usage",))  # of what a provider counts nothing is known before
ON_NODES: Final = frozenset(("ssh", "agent"))


class Outcomes:
    """See above. `lost`: the nodes that answer nobody."""

    def __init__(self, engine: Engine, steps: Mapping[str, StepSpec], pool: Pool) -> None:
        self._engine, self._steps, self._pool = engine, steps, pool
        self.lost: set[str] = set()

    def __call__(self, row: StepRow, args: dict[str, Any]) -> Outcome | None:
        """Implements `amends.runtime.stage.Direct`."""
        spec = self._steps[row.name]
        if row.name in NO_ANSWER or (spec.adapter in ON_NODES and node_of(row.target) in self.lost):
            return None
        needs = {*spec.needs, *(need for name, need in spec.needs_if.items() if args.get(name))}
        if "node_in_reach" in needs and not self._pool.in_reach(row.target):
            return None
        return Outcome("done", data=self._answer(row.name, args))

    def _answer(self, name: str, args: dict[str, Any]) -> dict[str, Any]:
        if name == "agent.reconcile":
            return {"foreign": [], **args["expected"]}  # it has what is expected of it and nothing else
        if name == "provider.verify":
            return self._access(args)
        return {}

    def _access(self, args: dict[str, Any]) -> dict[str, Any]:
        """What the provider says of a grant: that it is there, unless it is being taken back."""
        grant = self._engine.store.get("grant", grant_of(args["namespace_id"], args["node_id"]))
        held = grant.held if isinstance(grant, GrantState) else ()
        mode = next((e.mode for e in held if e.grant_id == args["grant_id"] and e.state != "revoking"), None)
        return {"granted": mode is not None} | ({"mode": mode} if mode is not None else {})
