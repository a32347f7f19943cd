"""Usage against quota, with hysteresis: blocked after two reads above it, free again after two well below (R14).

What is mounted already is let alone, unless the policy says that it is to be detached. Nothing is ever written to the
namespace.
"""

from msgspec.structs import replace

from actors.between import LeaveNode
from actors.facts import facts
from actors.namespace.state import Capabilities, Namespace, Usage
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.turn.recovery import begin_run, failure, failure_of, find_run

STEP, TIMER = "provider.usage", "usage"
HARD_PERCENT, CALM_PERCENT = 110, 95
READS = 2  # in a row: above, well below, or enforced
UNKNOWN_AFTER = 5  # failed reads in a row
OVER_BY = {
    "over": "well below its quota", "unenforced": "its provider enforces again", "unknown": "the provider tells again",
}  # fmt: skip


def read(d: Decision) -> None:
    """Ask the provider what is used; one question at a time."""
    s: Namespace = d.state
    args = {"provider_id": s.provider_id, "namespace_id": d.id}
    d.cancel(TIMER)
    d.step(STEP, f"provider:{s.provider_id}/usage:{d.id}", args, key=f"{d.id}:usage")


def done(s: Namespace, m: StepDone, d: Decision) -> None:
    """A read has ended, well or not; the next one follows after `quota_interval_ms`."""
    if s.state != "active":
        return
    if m.ok:
        _known(s, m, d)
    else:
        failure_of(d, m, severity="low")
        _failed(s, m, d, m.outcome.code)
    d.timer(TIMER, d.now_us + d.limits.us("quota_interval_ms"))


def _failed(s: Namespace, m: StepDone, d: Decision, code: str) -> None:
    d.part("usage", failed=s.usage.failed + 1)
    if s.usage.failed + 1 >= UNKNOWN_AFTER and not s.flag:
        _flag(d, m, "unknown", {"failed_reads": s.usage.failed + 1, "code": code})


def _known(s: Namespace, m: StepDone, d: Decision) -> None:
    found = m.outcome.data
    if found.get("capabilities"):
        d.set(capabilities=_capabilities(found["capabilities"]))
    as_of_us = min(found["as_of_us"], d.now_us)  # a provider's clock may be ahead
    if as_of_us < s.usage.as_of_us:  # older than what is known: no read
        _failed(s, m, d, "stale")
        return
    used, enforced = found["used_bytes"], bool(found["enforced"])
    over, calm = used > s.quota_bytes, used * 100 <= s.quota_bytes * CALM_PERCENT
    d.set(usage=Usage(
        used_bytes=used, as_of_us=as_of_us, enforced=enforced, over=s.usage.over + 1 if over else 0,
        calm=s.usage.calm + 1 if calm else 0, steady=s.usage.steady + 1 if enforced else 0,
    ))  # fmt: skip
    far = used * 100 > s.quota_bytes * HARD_PERCENT
    _judge(
        d, m, {"used_bytes": used, "quota_bytes": s.quota_bytes, "as_of_us": as_of_us, "enforced": enforced}, far=far
    )


def _judge(d: Decision, m: StepDone, said: dict[str, object], *, far: bool) -> None:
    """An episode may end with a read, and another one begin: one at a time, and above its quota before all."""
    usage: Usage = d.state.usage
    over = far or usage.over >= READS
    ends = {"": False, "unknown": True, "over": usage.calm >= READS, "unenforced": usage.steady >= READS}
    if ends[d.state.flag]:
        _clear(d, OVER_BY[d.state.flag])
    if over and d.state.flag == "unenforced":
        _clear(d, "it is above its quota as well", goes_on="over")
    if not d.state.flag and (over or not usage.enforced):
        _flag(d, m, "over" if over else "unenforced", said)


def _capabilities(found: dict[str, object]) -> Capabilities:
    def names(key: str) -> tuple[str, ...]:
        value = found.get(key)
        return tuple(str(each) for each in value) if isinstance(value, list | tuple) else ()

    return Capabilities(
        names("modes"), bool(found.get("multi_attach")), names("mount_path_prefixes"), str(found.get("enforcement", ""))
    )


def _flag(d: Decision, m: StepDone, flag: str, said: dict[str, object]) -> None:
    """An episode begins: new read-write attachments are refused, one run is open until it ends."""
    row = d.context.matrix.row_of(STEP).id
    code, why = f"quota_{flag}", f"the namespace is {flag}"
    span = d.did(STEP, 1, False, d.now_us, code, why)  # the read itself went well
    run = begin_run(d, row, trigger_type="degradation", original=(d.trace_id, span))
    run.caused_by(failure(
        d, code, why, component=STEP, span_id=span, failure_type="policy", ref=f"step:{m.step_id}", run=run
    ))  # fmt: skip
    d.set(flag=flag)
    run.compensate(
        "compensate", "state_change", "block", d.ref, "success", of=m.ref, cause=run.id, metadata={"flag": flag, **said}
    )
    run.degrade()
    d.audit("namespace.blocked", reason=why, details={"flag": flag, "recovery_trace_id": run.trace_id, **said})
    if flag != "unknown":  # whether it is above its quota nobody knows
        d.event("quota_exceeded", cause=flag)
    if flag == "over" and facts(d).policy.on_over_quota == "intervene":
        for attachment_id in facts(d).writers_of(d.id):
            d.tell("attachment", attachment_id, LeaveNode("quota"))


def _clear(d: Decision, why: str, *, goes_on: str = "") -> None:
    """An episode ends; or it goes on as another one, which blocks as well."""
    s: Namespace = d.state
    run = find_run(d, d.context.matrix.row_of(STEP).id)
    d.set(flag="", usage=replace(s.usage, calm=0, steady=0))
    if not goes_on:
        d.audit("namespace.unblocked", reason=why, details={"was": s.flag})
    if run is not None:
        if goes_on:
            run.action("fallback", "block", d.ref, "success", metadata={"flag": goes_on})
        run.end("recovered")
