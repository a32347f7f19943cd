"""The arguments of the rental's steps, as they are committed with an intent and reach an adapter.

A release that changes one declares how the older is brought up (`StepSpec.upgrades`, beside the step).
"""

from typing import Any

from msgspec import Struct


class OnNode(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A step that asks a node for nothing but an answer."""

    node_id: str


class OnUser(OnNode, frozen=True):
    """A step on a customer's user; `attempt` is the set-up that the user is of."""

    user: str
    allocation: str
    attempt: str


class InstallKey(OnUser, frozen=True):
    """The customer's key, re-encoded, as a line of authorized_keys."""

    key: str


class UndoUser(OnUser, frozen=True):
    """The user is locked or removed: by the undo of its set-up, or by an owed cleanup, in the action that says so."""

    cleanup: bool = False
    action_id: str = ""


class RemoveUser(UndoUser, frozen=True):
    """Of users that are left over on a node: those that come after this one, and those that could not be removed."""

    left: list[str] = []
    stuck: dict[str, str] = {}


class Reconcile(OnNode, frozen=True):
    """The agent tells what the node holds of what is expected: names by kind."""

    node_epoch: int
    expected: dict[str, list[str]]
    report_only: bool = False  # nothing is taken away, not even what the agent has made itself


class TakeInventory(OnNode, frozen=True):
    """The agent tells what the node holds, and does nothing. `wanted`: by what the database wanted then, `asked_us`."""

    node_epoch: int
    asked_us: int
    wanted: dict[str, list[str]]


class MirrorCredit(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A credit of the ledger, to be made at Stripe for this customer. `amount_minor` is above zero.

    `first_us`: when it was sent first; `generation`: the next one after an error that Stripe has stored under the key;
    `look_up`: it may be there already, so look before it is made. `spent`: tries of its budget by now; `resent`: by an
    operator's word.
    """

    customer: str
    amount_minor: int
    currency: str
    ledger_key: str
    first_us: int
    generation: int = 0
    look_up: bool = False
    spent: int = 0
    resent: bool = False


class ReadMirror(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What Stripe has of a customer, beside the ledger; a credit younger than `grace_ms` is left out."""

    customer: str
    grace_ms: int


class OnProvider(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A step at a storage provider: what it can do (`provider.capabilities`)."""

    provider_id: str


class OnNamespace(OnProvider, frozen=True):
    """What a namespace uses (`provider.usage`)."""

    namespace_id: str


class ListGrants(OnNamespace, frozen=True):
    """Which grants of a namespace there are. `wanted`: by what the database wanted then, `asked_us`."""

    asked_us: int
    wanted: dict[str, list[str]]


class OnGrant(OnNamespace, frozen=True):
    """One grant is looked at (`provider.verify`) or taken back (`provider.revoke`)."""

    grant_id: str
    node_id: str


class ApplyGrant(OnGrant, frozen=True):
    """A node may mount the namespace (`provider.grant`)."""

    node_address: str
    mode: str


class OnMount(OnNode, frozen=True):
    """A task on a mount: `agent.mount`, `agent.probe_mount`, `agent.unmount`. `source` is what the grant said."""

    attachment_id: str
    attempt_id: str
    namespace_id: str
    mode: str
    mount_path: str
    source: dict[str, Any]
    node_epoch: int
    action_id: str = ""
