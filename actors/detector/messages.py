"""What the detector's actor is told: by the guards, and by operators."""

from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from actors.fields import Label, NodeId
from amends.domain.api import Asked, Command, Reason, Request

FLEET = "fleet"  # the only actor of its kind
MOST_NODES = 10_000


class ConfirmLoss(Request, frozen=True):
    """ops.detector.confirm"""

    command: ClassVar[Command] = Command(
        subject="ops.detector.confirm", help="nodes that the guards hold in suspect are lost indeed", of="detector",
        one=FLEET, role="operator", row="",
        answer={"confirmed": {"type": "integer"}, "nodes": {"type": "array", "items": {"type": "string"}}},
        example={"domain": "hall-2", "reason": "the hall has no power"}, beside={"confirmed": 1, "nodes": ["node-1"]},
    )  # fmt: skip
    reason: Reason
    domain: Annotated[Label | None, Asked("the failure domain: a value of its label", "--domain")] = None
    node_ids: Annotated[
        Annotated[list[NodeId], Meta(max_length=MOST_NODES)] | None, Asked("these nodes only", "--node", "names")
    ] = None


class DetectorStarts(Struct, frozen=True):
    """The detector begins; its actor is made if it is the first time."""


class MassSilence(Struct, frozen=True):
    """So many nodes of the domain are silent, or lost of late, that no verdict is passed there ("*": anywhere)."""

    domain: str
    silent: int
    total: int


class MassOver(Struct, frozen=True):
    """The share has dropped: the domain's hold has ended by itself."""

    domain: str
