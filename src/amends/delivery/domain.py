"""Delivery: what every domain carries so that its events and notifications get out. Data only."""

from amends.delivery.arguments import NoArgs, PublishArgs, RepublishArgs
from amends.delivery.notifications import NOTIFICATION
from amends.delivery.requests import AcknowledgeCase, SettleCase
from amends.delivery.streams import CREATE_STREAMS, PUBLISH_OUTBOX, REPUBLISH, STREAM
from amends.domain.steps import StepSpec
from amends.turn.notify import PUBLISH_NOTIFICATION

DELIVERY_KINDS = (NOTIFICATION, STREAM)
DELIVERY_REQUESTS = (SettleCase, AcknowledgeCase)  # those that reach their entity as another message
# An operator's acts on the bus need no row: nothing is to be undone, and a failure is his to see in the audit.
DELIVERY_STEPS = (
    StepSpec(
        name=PUBLISH_NOTIFICATION, adapter="bus", no_undo="a repeat has the same message id", failures=("error",),
        args=PublishArgs,
    ),
    StepSpec(name=CREATE_STREAMS, adapter="bus-admin", effect=False, args=NoArgs),
    StepSpec(name=REPUBLISH, adapter="bus-admin", effect=False, args=RepublishArgs),
    StepSpec(name=PUBLISH_OUTBOX, external=False, no_undo="a repeat has the same message id", failures=("error",)),
)  # fmt: skip
