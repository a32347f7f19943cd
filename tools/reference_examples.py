"""One example of request and reply data for each subject that the service answers; tools/reference.py prints them.

Those of commands are declared with them; this page has the rows they begin from, and the examples of questions.

A made-up morning: acme rents node-1, gives it back, and the removal of the customer's user fails until an operator
helps. Ids are of the real shape and derive from their prefix, so that the pages stay as they are.
"""

import hashlib
from typing import Any, Final

import msgspec

from actors.allocation.state import access_to
from actors.money.explanation import explain
from actors.money.metering import Usage
from adapters.postgres.reading import ENTITIES
from amends.domain.api import Request, example_of
from amends.domain.domain import requests_of
from amends.values import ids
from amends.values.errors import Rejected
from supervisors.matrix import MATRIX
from supervisors.policy_file import BUILT_IN, built_in
from supervisors.rental import RENTAL

Json = dict[str, Any]
POLICY: Final = built_in()
T0: Final = 1_768_464_000_000_000  # 2026-01-15 08:00 UTC


def _id(prefix: str) -> str:
    return ids.type_id(prefix, T0, hashlib.sha256(prefix.encode()).digest())


def _hex(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


ALLOCATION, ATTEMPT, METER, DEBT = _id("alloc"), _id("task"), _id("meter"), _id("debt")
CASE, NOTIFICATION, EVENT, STEP = _id("case"), _id("ntf"), _id("evt"), _id("step")
FAILURE, RUN, ACTION, COMPENSATION, AUDIT = _id("fail"), _id("recov"), _id("act"), _id("comp"), _id("aud")
ATTACHMENT, MOUNT_ATTEMPT, GRANT = _id("attach"), _id("task"), _id("grant")
ENTITY, USER = f"allocation:{ALLOCATION}", f"node:node-1/user:am-{ids.suffix(ALLOCATION)}"
COMMAND_TRACE, RUN_TRACE = _hex("command", 32), _hex("run", 32)
SPAN = _hex("span", 16)
HOST_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHkGFP6jA35xzb5GpLR0RjjfxvWdGB3K2YxsVvvH5ZcS"
CUSTOMER_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGn2q0yRkD1zVZQ7eF2p8mT4bLqv0sXhW3uJ6cN9tYwE"
NAMES: Final = {
    "allocation": ALLOCATION, "notification": NOTIFICATION, "event": EVENT, "case": CASE, "host_key": HOST_KEY,
    "customer_key": CUSTOMER_KEY, "meter": METER, "attachment": ATTACHMENT,
}  # fmt: skip

ACCESS: Final[Json] = msgspec.to_builtins(access_to(ALLOCATION, "10.0.0.11", 22, HOST_KEY))

# One row of each view that can be asked for, as it stands at the end of the morning.
ROWS: Final[dict[str, Json]] = {
    "account": {
        "account_id": "acme", "currency": "usd", "stripe_customer_id": None, "created_us": T0, "state": "open",
        "version": 1,
    },
    "node": {
        "node_id": "node-1", "state": "quarantined", "labels": {"site": "here"}, "dirty": True, "reserved_by": None,
        "allocated_to": None, "epoch": 1, "boot_id": "5a1d2c1e-7f0b-4a52-9d53-0c6f8f2b7a11",
        "last_heartbeat_us": T0 + 7_200_000_000, "flap_count": 0, "quarantine_reasons": ["cleanup_exhausted"],
        "version": 9,
    },
    "allocation": {
        "allocation_id": ALLOCATION, "account_id": "acme", "node_id": "node-1", "state": "released",
        "failure_code": None, "release_cause": "user", "cleanup_pending": True, "cleanup_attempts": 8,
        "billing_state": "stopped", "rate_uminor_per_hour": 249000000, "attempt_id": ATTEMPT,
        "external_ref": "order-7731", "access": ACCESS, "requested_us": T0 + 60_000_000,
        "activated_us": T0 + 60_090_000,
        "ended_us": T0 + 3_660_040_000, "trace_id": COMMAND_TRACE, "version": 21,
    },
    "attachment": {
        "attachment_id": ATTACHMENT, "allocation_id": ALLOCATION, "namespace_id": "acme-data", "node_id": "node-1",
        "mode": "rw", "mount_path": "/mnt/data", "state": "detached", "reason": None, "attempt_id": MOUNT_ATTEMPT,
        "grant_id": GRANT, "trace_id": COMMAND_TRACE, "version": 8, "account_id": "acme",
    },
    "namespace": {
        "namespace_id": "acme-data", "account_id": "acme", "provider_id": "nfs-1", "state": "active",
        "quota_bytes": 107374182400, "used_bytes": 5368709120, "rw_blocked": False, "quota_flag": None, "drift": {},
        "version": 3,
    },
    "provider_grant": {
        "grant_id": GRANT, "namespace_id": "acme-data", "node_id": "node-1", "provider_id": "nfs-1", "mode": "rw",
        "state": "revoked",
    },
    "debt": {
        "debt_id": DEBT, "node_id": "node-1", "kind": "user", "target_ref": USER, "allocation_id": ALLOCATION,
        "attachment_id": None, "attempts": 8, "since_us": T0 + 3_660_040_000,
    },
    "meter": {
        "meter_id": METER, "allocation_id": ALLOCATION, "account_id": "acme", "state": "stopped",
        "rate_uminor_per_hour": 249000000, "policy_version": "2026-01-01.1", "policy_sha256": _hex("policy", 64),
        "started_us": T0 + 60_090_000, "stopped_us": T0 + 3_660_000_000, "stop_cause": "release",
        "posted_through_us": T0 + 3_660_000_000,
    },
    "ledger_entry": {
        "entry_id": _id("ent"), "account_id": "acme", "meter_id": METER, "entry_type": "debit", "amount_minor": 244,
        "currency": "usd", "idempotency_key": f"debit:{METER}:{T0}", "payload_hash": _hex("payload", 64),
        "rule_id": None, "window_start_us": T0, "created_us": T0 + 3_700_000_000,
    },
    "payment": {
        "payment_id": "pi_1", "account_id": "acme", "state": "credited", "currency": "usd", "amount_minor": 5000,
        "since_us": T0, "waiting": [], "booked": {"topup:pi_1": 5000}, "version": 1,
    },
    "stripe_event": {
        "event_id": "evt_1", "type": "payment_intent.succeeded", "state": "applied", "account_id": "acme",
        "received_us": T0, "payment_id": "pi_1",
    },
    "notification": {
        "notification_id": NOTIFICATION, "audience": "account", "account_id": "acme", "kind": "allocation.released",
        "entity": ENTITY, "state": "parked", "attempts": 6, "dedupe_key": f"{ENTITY}:allocation.released:14:0",
        "created_us": T0 + 3_660_040_000, "sent_us": None, "version": 7,
    },
    "outbox": {
        "outbox_id": EVENT, "entity": ENTITY, "subject": f"amends.v1.evt.allocation.{ALLOCATION}.released",
        "state": "published", "attempts": 1, "created_us": T0 + 3_660_040_000, "published_us": T0 + 3_660_042_000,
        "stream": "AMENDS_EVT", "trace_id": COMMAND_TRACE,
    },
    "step": {
        "step_id": STEP, "entity": ENTITY, "name": "ssh.user-remove", "attempt": 8, "state": "failed",
        "idempotency_key": f"{ALLOCATION}:cleanup:ssh.user-remove", "started_us": T0 + 5_000_000_000,
        "ended_us": T0 + 5_003_000_000, "next_attempt_us": T0 + 5_000_000_000, "target": "node:node-1",
        "code": "ssh_connect_failed", "message": "connection refused", "trace_id": RUN_TRACE, "span_id": SPAN,
    },
    "failure": {
        "failure_id": FAILURE, "trace_id": RUN_TRACE, "span_id": SPAN, "timestamp": "2026-01-15T09:23:23.000000Z",
        "failure_type": "error", "severity": "medium", "ref": f"step:{STEP}", "message": "connection refused",
        "code": "ssh_connect_failed", "component": "ssh.user-remove", "cause_ref": None, "propagation_hop": 0,
        "recovery_trace_id": RUN_TRACE, "at_us": T0 + 5_003_000_000,
    },
    "recovery_run": {
        "recovery_id": RUN, "recovery_trace_id": RUN_TRACE, "matrix_row": "R04", "matrix_version": MATRIX.version,
        "matrix_sha256": _hex("matrix", 64), "policy_sha256": _hex("policy", 64),
        "started_at": "2026-01-15T09:01:03.000000Z", "ended_at": "2026-01-15T09:23:23.000000Z",
        "trigger_type": "failure", "trigger_ref": f"failure:{FAILURE}", "original_trace_id": COMMAND_TRACE,
        "final_outcome": "failed", "entity": ENTITY, "name": "release cleanup", "net": {},
        "original_span_id": SPAN, "started_us": T0 + 3_663_000_000, "ended_us": T0 + 5_003_000_000,
    },
    "recovery_action": {
        "action_id": ACTION, "recovery_trace_id": RUN_TRACE, "sequence": 10,
        "timestamp": "2026-01-15T09:23:23.000000Z", "action_type": "compensation", "target_ref": USER,
        "outcome": "failure", "duration_ms": None, "metadata": {"code": "ssh_connect_failed", "tries": 8},
        "what": "compensate user-create", "operator": None, "at_us": T0 + 5_003_000_000,
    },
    "compensation": {
        "compensation_id": COMPENSATION, "recovery_trace_id": RUN_TRACE, "sequence": 10,
        "timestamp": "2026-01-15T09:23:23.000000Z", "compensated_action_ref": f"{COMMAND_TRACE}:{SPAN}",
        "compensated_action_type": "side_effect", "compensation_type": "compensate", "target_ref": USER,
        "outcome": "failure", "duration_ms": None, "metadata": {"code": "ssh_connect_failed", "tries": 8},
        "matrix_row": "R04", "comp_key": f"R04:{USER}:{RUN}:compensate:8", "action_id": ACTION,
        "at_us": T0 + 5_003_000_000,
    },
    "audit_log": {
        "audit_id": AUDIT, "seq": 114, "at_us": T0 + 5_003_000_000, "actor": "runtime", "action": "case.open",
        "target_ref": f"case:{CASE}", "from_state": None, "to_state": "open", "reason": "cleanup_exhausted",
        "request_id": None, "trace_id": RUN_TRACE, "recovery_trace_id": RUN_TRACE, "epoch": 1,
        "details": {"kind": "cleanup_exhausted", "target_ref": ENTITY}, "prev_hash": _hex("113", 64),
        "hash": _hex("114", 64),
    },
    "ops_case": {
        "case_id": CASE, "kind": "cleanup_exhausted", "target_ref": ENTITY, "state": "open",
        "opened_us": T0 + 5_003_000_000, "resolved_us": None, "recovery_trace_id": RUN_TRACE,
        "commands": ["ops.cleanup.retry", "ops.node.retire"],
        "evidence": {"node_id": "node-1", "tries": 8, "code": "ssh_connect_failed"}, "entity": ENTITY,
    },
}  # fmt: skip

EXPLAINED: Final = explain(
    ROWS["ledger_entry"]["idempotency_key"],
    Usage(ROWS["meter"]["rate_uminor_per_hour"], ROWS["meter"]["started_us"], POLICY.time.unit_us), POLICY, (),
)  # fmt: skip

# What a list is asked for beside its limit: one of the view's columns.
FILTERS: Final[dict[str, str]] = {
    "account": "stripe_customer_id", "node": "state", "allocation": "account_id", "attachment": "allocation_id",
    "namespace": "account_id", "provider_grant": "namespace_id", "debt": "node_id",
    "meter": "account_id",
    "ledger_entry": "account_id", "payment": "account_id", "stripe_event": "state",
    "notification": "state", "outbox": "state", "step": "entity",
    "failure": "recovery_trace_id", "recovery_run": "entity", "recovery_action": "recovery_trace_id",
    "compensation": "recovery_trace_id", "audit_log": "target_ref", "ops_case": "state",
}  # fmt: skip


def command_example(request: type[Request]) -> tuple[Json, Json]:
    """Request and reply data of a command, as its declaration says."""
    command = request.command
    assert command is not None
    reply: Json = {}
    if command.shown:
        row = {**ROWS[command.shown], **command.then}
        if command.shown == "notification":
            del row["version"]
        reply[command.shown] = row
    reply |= {key: one.format_map(NAMES) if isinstance(one, str) else one for key, one in command.beside.items()}
    return example_of(request, NAMES), reply


_FORECAST: Final[Json] = {
    "as_of_us": T0 + 3_000_000_000, "assumptions": ["every step ends well at its first try, and at once"],
    "refused": None, "reply": {}, "transitions": [], "failures": [], "compensations": [], "runs": [], "ledger": [],
    "accounts": [], "notifications": [], "cases": [], "steps": [], "waiting": [], "held": [], "took_us": 6200,
}  # fmt: skip
FORECASTS: Final[dict[str, tuple[Json, Json]]] = {
    "ops.whatif.node_loss": ({"node_id": "node-1"}, {
        **_FORECAST,
        "transitions": [{"entity": ENTITY, "from": "active", "to": "failed", "cause": "node_offline"}],
        "failures": [{"code": "node_offline", "failure_type": "timeout", "severity": "high", "ref": ENTITY,
                      "component": "node.verdict", "propagation_hop": 1, "message": "the node node-1 is lost"}],
        "compensations": [{
            "matrix_row": "R08", "entity": ENTITY, "compensation_type": "cancel",
            "compensated_action_type": "state_change", "what": "cancel meter", "target_ref": f"meter:{METER}",
            "outcome": "success"}],
        "runs": [{"matrix_row": "R08", "entity": ENTITY, "begun": True, "final_outcome": "degraded"}],
        "ledger": [{
            "account_id": "acme", "meter_id": METER, "entry_type": "debit", "amount_minor": EXPLAINED.amount_minor,
            "currency": "usd", "idempotency_key": ROWS["ledger_entry"]["idempotency_key"], "rule_id": None,
            "formula": list(EXPLAINED.lines), "minor_unit_exponent": 2}],
        "accounts": [{"account_id": "acme", "currency": "usd", "debited_minor": EXPLAINED.amount_minor,
                      "credited_minor": 0, "balance_minor": 5000,
                      "balance_after_minor": 5000 - EXPLAINED.amount_minor}],
        "notifications": [{"kind": "allocation.failed", "audience": "account", "account_id": "acme", "entity": ENTITY,
                           "cause": "node_offline"}],
        "waiting": [{"name": "ssh.user-lock", "entity": ENTITY, "target": "node:node-1"}],
    }),
    "ops.whatif.force_release": ({"allocation_id": ALLOCATION, "reason_code": "platform_fault"}, {
        **_FORECAST, "reply": {"accepted_us": T0 + 3_000_000_000},
        "steps": [{"name": "ssh.user-lock", "entity": ENTITY, "target": "node:node-1"}],
    }),
    "ops.whatif.command": ({"subject": "ops.cleanup.retry", "data": {"allocation_id": ALLOCATION}}, {
        **_FORECAST, "steps": [{"name": "ssh.user-remove", "entity": ENTITY, "target": "node:node-1"}],
    }),
    "ops.whatif.node_retire": ({"node_id": "node-1"}, {**_FORECAST, "refused": Rejected(
        "illegal_transition", "a node that is ready cannot be retired", state="ready").body()}),
}  # fmt: skip

COMMANDS: Final = {subject: command_example(request) for subject, request in requests_of((RENTAL,)).items()}

QUESTIONS: Final[dict[str, tuple[Json, Json]]] = {
    "ops.tree.show": ({}, {"tree": {
        "name": "amends", "strategy": "one_for_one",
        "children": [
            {"name": "journal", "state": "running", "restarts": 0},
            {"name": "entities", "strategy": "one_for_one", "crashes": 0, "quarantined_messages": 0, "mailboxes": 0,
             "children": [{"name": "node", "state": "supervised", "in_memory": 20, "restarts": 0}]},
        ],
    }}),
    "ops.matrix.show": ({}, {
        "version": MATRIX.version, "sha256": _hex("matrix", 64),
        "rows": [
            {"id": "R04", "name": "release cleanup", "status": "built", "entity": "allocation", "runs": 1,
             "recovered": 0, "degraded": 0, "failed": 1, "open": 0},
            {"id": "R05", "name": "debit replay", "status": "built", "entity": "meter", "runs": 0, "recovered": 0,
             "degraded": 0, "failed": 0, "open": 0},
        ],
    }),
    "ops.audit.verify": ({}, {"valid": True, "entries": 114, "head_hash": _hex("114", 64)}),
    "ops.policy.show": ({}, {
        "version": POLICY.version, "sha256": POLICY.sha256, "in_force": True, "currency": POLICY.currency,
        "rules": [msgspec.to_builtins(POLICY.rules[-1])], "toml": 'policy_version = "2026-01-01.1"\n…', "problem": "",
    }),
    "ingress.stripe": (
        {"id": "evt_1", "type": "payment_intent.succeeded",
         "data": {"object": {"id": "pi_1", "amount_received": 5000, "currency": "usd", "customer": None,
                             "metadata": {"account_id": "acme"}}}},
        {"duplicate": False},
    ),
    "ops.policy.evaluate": (
        {"rate_uminor_per_hour": 249000000, "started_us": T0, "cause": "force_release", "reason": "operator_request",
         "stop_us": T0 + 2_400_000_000, "posted_through_us": T0 + 2_400_000_000, "later_cause": "node_offline",
         "later_stop_us": T0 + 2_370_000_000},
        {"posted": 166, "final": 0, "minimum": 0, "overrun": 3, "policy_credit": 0, "net": 163,
         "rule_id": "force_default", "policy_version": POLICY.version, "policy_sha256": POLICY.sha256},
    ),
    "ops.ledger.verify": (
        {"account_id": "acme"},
        {"checked": {"meters": 1, "payments": 0, "accounts": 0, "entries": 1, "mirrored": 0,
                     "not_compared": 0},
         "wrong": [], "wrong_count": 0, "cursor": "payments:"},
    ),
    "ops.policy.backtest": (
        {"toml": BUILT_IN.read_text(encoding="utf-8").replace("2026-01-01.1", "2026-06-01.1"), "since_us": T0},
        {"policy_version": "2026-06-01.1", "policy_sha256": _hex("other", 64), "meters": 1, "charged_minor": 249,
         "credited_minor": 0, "would_charge_minor": 249, "would_credit_minor": 0, "not_comparable": 0,
         "rules": {"release_default": {"meters": 1, "credited_minor": 0}}, "changes": [], "cursor": None},
    ),
    **FORECASTS,
    "ops.trace.verify": ({}, {"valid": True, "compensations": 14, "spans": 168, "differences": []}),
    "ops.trace.export": (
        {"limit": 1}, {"traces": {"data": [], "total": 0, "limit": 0, "offset": 0, "errors": None}, "recoveries": 0,
                       "truncated": False},
    ),
    "ops.case.list": ({"state": "open", "limit": 20}, {"items": [ROWS["ops_case"]], "cursor": None}),
    "ops.case.show": ({"case_id": CASE}, {"case": ROWS["ops_case"], "runbook": "# cleanup_exhausted\n…"}),
    "qry.account.statement": (
        {"account_id": "acme", "since_us": T0, "until_us": T0 + 86_400_000_000},
        {"entries": [ROWS["ledger_entry"]], "balance_minor": -248, "currency": "usd", "opening_minor": 0,
         "minor_unit_exponent": 2, "cursor": None},
    ),
    "qry.ledger_entry.explain": (
        {"idempotency_key": ROWS["ledger_entry"]["idempotency_key"]},
        {"entry": ROWS["ledger_entry"], "meter": ROWS["meter"], "what": EXPLAINED.what,
         "formula": list(EXPLAINED.lines), "reckoned_minor": EXPLAINED.amount_minor, "agrees": True,
         "evaluation": None, "rule": None,
         "policy": {"version": POLICY.version, "sha256": _hex("policy", 64), "currency": POLICY.currency,
                    "minor_unit_exponent": POLICY.minor_unit_exponent, "unit_us": POLICY.time.unit_us,
                    "window_us": POLICY.time.window_us},
         "traces": {"allocation": COMMAND_TRACE}, "problem": "", "payment": None, "minor_unit_exponent": 2},
    ),
}  # fmt: skip

# What a reader of the example must know beside it.
NOTES: Final[dict[str, str]] = {
    "ingress.stripe": "Shortened. The body is the event as Stripe sent it, byte for byte, with its header "
    "`Stripe-Signature`; no key and no token. Over HTTP it is `POST /stripe/webhook` (`credit-policy.md`).",
    "ops.ledger.verify": "A page: meters, then payments, then accounts; `cursor` leads on, null is the end. `wrong` "
    "has at most 100 of a page, each with `target_ref`, `what`, `key`, `wanted_minor`, `found_minor` and `detail`. "
    "Where credits are mirrored Stripe is asked about ten customers a page; once it cannot be, the cursor leads on by "
    "`balances:`, where it is not, and `not_compared` counts the customers that were not compared with what it has.",
    "ops.policy.backtest": "A page of 200 rentals, the amounts those of the page. `toml` is a whole policy file. "
    "`not_comparable`: the last heartbeat was not recorded, since the policy of the day did not go by it.",
    "ops.outbox.republish": "Each event goes out as `<event_id>.r<n>`, body unchanged. What takes more than 20 s goes "
    "on after the reply, which then says `complete: false`; the audit entry at its end has the same counts.",
    "ops.streams.create": "The work goes on after the reply; an audit entry says how it ended.",
    "qry.account.statement": "Shortened. At most 1000 entries, in the order of time; `cursor` leads on. "
    "`opening_minor` is the balance before the first of them, `balance_minor` that of now. `minor_unit_exponent` is "
    "that of the policy in force, null for another currency.",
    "qry.ledger_entry.explain": "`formula` is reckoned anew from meter, policy and what was evaluated at the end; "
    "`agrees` says whether the entry has the same. Where that cannot be done `problem` says why. `evaluation` is the "
    "audit entry `billing.credit.evaluated`; a window that was posted while the meter ran has none. "
    "`minor_unit_exponent` is that of the policy of the entry's meter; of a payment, that of the policy in force.",
    "ops.trace.export": "`traces` is a document of Jaeger's JSON; here of a runtime that has recovered nothing.",
    "ops.tree.show": "Shortened; services add fields of their own.",
    "ops.policy.show": "Shortened. `rules` are as they are read, with what a rule leaves out filled in; `toml` is the "
    "text as it was stored. Where this release refuses what an earlier one took, `rules` is empty and `problem` says "
    "why.",
    "ops.policy.evaluate": "`net` is what the rental costs in the end: debits less all credits, `prior_credits` too.",
    "ops.matrix.show": "Shortened: the reply has all 14 rows.",
    "ops.whatif.node_loss": "Shortened. Played with copies of the committed states by the actors themselves, as of "
    "`as_of_us`; nothing is written. `failures`, `compensations`, `runs`, `cases` and `notifications` have the fields "
    "that the records would have; `ledger` has the formula of each entry, as `qry.ledger_entry.explain` would tell it, "
    "and `accounts` what that comes to. `steps` would be done outside, `waiting` stays owed until the node is back; "
    "`held` are paused entities, which take nothing in until their case is resolved. "
    "`refused` is the error where it would not happen; then every list is empty.",
    "ops.whatif.force_release": "Shortened; see `ops.whatif.node_loss`. `reply` is what the command would answer "
    "beside its entity. Without `reason_code` it is `operator_request`.",
    "ops.whatif.node_retire": "See `ops.whatif.node_loss`.",
    "ops.whatif.command": "See `ops.whatif.node_loss`; `data` is what the command would be sent with, `reason` may be "
    "left out. There is none for commands that make an entity with an id of the runtime's, nor for those to the "
    "detector and to the outbox: `invalid_request`.",
}


def example(subject: str) -> tuple[Json, Json]:
    """Request and reply data of a subject; KeyError if there is none."""
    for table in (COMMANDS, QUESTIONS):
        if subject in table:
            return table[subject]
    _, entity, verb = subject.split(".")
    row = ROWS[entity]
    if verb == "get":
        return {"id": row[ENTITIES[entity]]}, row
    return {FILTERS[entity]: row[FILTERS[entity]], "limit": 20}, {"items": [row], "cursor": None}
