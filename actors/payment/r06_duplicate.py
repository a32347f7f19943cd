"""A webhook event that came before, or whose payment is booked already: no-op, acknowledged, recorded (R06)."""

from typing import Any

from actors.payment.state import Said
from amends.turn.decision import Decision
from amends.turn.recovery import begin_run, failure

STEP = "payments.webhook"


def event_ref(said: Said) -> str:
    """target_ref of a Stripe event."""
    return f"stripe_event:{said.event_id}"


def cancel(d: Decision, said: Said, code: str, **metadata: Any) -> None:
    """The record of one delivery that does nothing, in a run of its own."""
    within, cause = d.recovery_trace_id, f"{d.env.request_id or d.env.message_id or d.now_us}:{said.event_id}"
    target = event_ref(said)
    if not d.span_id:  # of a turn that nobody asked for; every record leads to a span
        d.span_id = d.did(STEP, 1, True, d.now_us)
    run = begin_run(
        d, d.context.matrix.row_of(STEP).id, key=f"{STEP} {cause}", original=(d.trace_id, d.span_id), entity=d.ref
    )
    failure_id = failure(
        d, code, f"{said.type} {said.event_id}: {code.replace('_', ' ')}", component=STEP, span_id=d.span_id,
        failure_type="violation", severity="low", ref=target, run=run,
    )  # fmt: skip
    run.caused_by(failure_id)
    run.compensate(
        "cancel", "external_call", "webhook", target, "success", of=f"{d.trace_id}:{d.span_id}", cause=cause,
        duration_ms=0, metadata={"code": code, "type": said.type, "payment": said.payment_id, **metadata},
    )  # fmt: skip
    run.end("recovered")
    d.recovery_trace_id = within  # what else this turn does is no part of it
