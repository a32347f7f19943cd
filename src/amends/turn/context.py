"""What every turn of one runtime shares: its epoch, its limits, and what its domains declare."""

from collections.abc import Callable, Sequence
from typing import Any

from amends.domain.checks import join
from amends.domain.domain import Domain
from amends.values.limits import Limits

OWN_CASES = ("actor_quarantined", "unknown_step")  # the runtime's own, whatever a domain says of them


AddressOf = Callable[[str], tuple[str, int]]  # a step's target → host and port, ("", 0) where there are none


def no_address(target: str) -> tuple[str, int]:
    """Of a domain whose steps go to no address."""
    return "", 0


class Context:
    """What every turn of one runtime shares."""

    def __init__(
        self, domains: Sequence[Domain], *, epoch: int, limits: Limits, facts: Any = None, policy_sha256: str = "",
        address_of: AddressOf = no_address,
    ) -> None:  # fmt: skip
        self.epoch = epoch
        self.limits = limits
        self.matrix = join(domains)
        self.matrix_sha256 = self.matrix.sha256
        self.policy_sha256 = policy_sha256
        self.facts = facts
        self.versions = {kind.name: kind.v for domain in domains for kind in domain.kinds}
        self.steps = {step.name: step for domain in domains for step in domain.steps}
        self.case_commands = {case.kind: case.commands for domain in domains for case in domain.cases}
        self.free_cases = {case.kind for domain in domains for case in domain.cases if not case.owes}
        self.case_commands |= {kind: () for kind in OWN_CASES if kind not in self.case_commands}
        self.address_of = address_of  # what a step's span says of its target
        self.unread: set[str] = set()  # ids of steps and messages that this release cannot make out
