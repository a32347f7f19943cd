-- Made by `./run pages` from what row types (`Table`) and actor kinds declare: change those, not this.

-- name: write_command
-- One handled command: what its span is derived from.
INSERT INTO command (
    caller, subject, request_id, trace_id, span_id, parent_span_id, entity, http, error_code, received_us,
    replied_us, epoch, link, jseq
)
SELECT
    caller, subject, request_id, trace_id, span_id, parent_span_id, entity, http, error_code, received_us,
    replied_us, epoch, link, jseq
FROM json_to_recordset($1::json) AS row (
    caller text, subject text, request_id text, trace_id text, span_id text, parent_span_id text, entity text,
    http bigint, error_code text, received_us bigint, replied_us bigint, epoch bigint, link text, jseq bigint
);

-- name: write_command_reply
-- What a command was answered, kept for 7 days; unique by (caller, key).
INSERT INTO command_reply (
    caller, key, body_hash, request_id, trace_id, span_id, http, reply, received_us, jseq
)
SELECT
    caller, key, body_hash, request_id, trace_id, span_id, http, reply, received_us, jseq
FROM json_to_recordset($1::json) AS row (
    caller text, key text, body_hash text, request_id text, trace_id text, span_id text, http bigint, reply text,
    received_us bigint, jseq bigint
);

-- name: write_step
-- The intent of one try of one step (B8: committed before the step runs), or a try already ended.
INSERT INTO step (
    step_id, entity, name, attempt, state, idempotency_key, target, args, undo, trace_id, parent_span_id, started_us,
    ended_us, next_attempt_us, code, message, epoch, server_address, server_port, jseq, month
)
SELECT
    step_id, entity, name, attempt, state, idempotency_key, target, args, undo, trace_id, parent_span_id, started_us,
    ended_us, next_attempt_us, code, message, epoch, server_address, server_port, jseq,
    CASE WHEN ended_us IS NULL THEN 0 ELSE amends_month() END
FROM json_to_recordset($1::json) AS row (
    step_id text, entity text, name text, attempt bigint, state text, idempotency_key text, target text, args text,
    undo text, trace_id text, parent_span_id text, started_us bigint, ended_us bigint, next_attempt_us bigint,
    code text, message text, epoch bigint, server_address text, server_port bigint, jseq bigint
);

-- name: live_step
-- What is live of step, as it was committed.
SELECT
    step_id, entity, name, attempt, state, idempotency_key, target, args, undo, trace_id, parent_span_id, started_us,
    ended_us, next_attempt_us, code, message, epoch, server_address, server_port
FROM step_open WHERE state IN ('intended')
ORDER BY jseq, step_id;

-- name: write_step_end
-- The outcome of a try.
UPDATE step SET
    state = row.state, started_us = row.started_us, ended_us = row.ended_us, code = row.code, message = row.message,
    epoch = row.epoch, jseq = row.jseq, month = CASE WHEN row.ended_us IS NOT NULL THEN amends_month() ELSE 0 END
FROM (SELECT DISTINCT ON (step_id) * FROM ROWS FROM (json_to_recordset($1::json) AS (
    step_id text, state text, started_us bigint, ended_us bigint, code text, message text, epoch bigint, jseq bigint
)) WITH ORDINALITY AS written (
    step_id, state, started_us, ended_us, code, message, epoch, jseq, place
) ORDER BY step_id, place DESC) AS row
WHERE step.step_id = row.step_id AND step.step_id = ANY ($2::text[]) AND step.month = 0;

-- name: write_message
-- A durable message to another actor; deleted by the turn that consumes it.
INSERT INTO message (
    message_id, to_kind, to_id, type, body, trace_id, span_id, actor, request_id, sent_us, jseq
)
SELECT
    message_id, to_kind, to_id, type, body, trace_id, span_id, actor, request_id, sent_us, jseq
FROM json_to_recordset($1::json) AS row (
    message_id text, to_kind text, to_id text, type text, body text, trace_id text, span_id text, actor text,
    request_id text, sent_us bigint, jseq bigint
);

-- name: live_message
-- What is live of message, as it was committed.
SELECT
    message_id, to_kind, to_id, type, body, trace_id, span_id, actor, request_id, sent_us
FROM message
ORDER BY jseq, message_id;

-- name: write_outbox
-- An event still to be published; `outbox_id` is also its `Nats-Msg-Id`.
INSERT INTO outbox (
    outbox_id, entity, stream, subject, payload, trace_id, span_id, created_us, jseq
)
SELECT
    outbox_id, entity, stream, subject, payload, trace_id, span_id, created_us, jseq
FROM json_to_recordset($1::json) AS row (
    outbox_id text, entity text, stream text, subject text, payload text, trace_id text, span_id text,
    created_us bigint, jseq bigint
);

-- name: write_outbox_mark
-- What publishing an outbox row came to.
UPDATE outbox SET
    state = row.state, attempts = row.attempts, published_us = row.published_us,
    month = CASE WHEN row.state IN ('published', 'skipped') THEN amends_month() ELSE 0 END
FROM (SELECT DISTINCT ON (outbox_id) * FROM ROWS FROM (json_to_recordset($1::json) AS (
    outbox_id text, state text, attempts bigint, published_us bigint, jseq bigint
)) WITH ORDINALITY AS written (
    outbox_id, state, attempts, published_us, jseq, place
) ORDER BY outbox_id, place DESC) AS row
WHERE outbox.outbox_id = row.outbox_id AND outbox.outbox_id = ANY ($2::text[]) AND outbox.month = 0;

-- name: write_failure
-- `traces.md`: Failure.
INSERT INTO failure (
    failure_id, trace_id, span_id, at_us, failure_type, severity, ref, message, code, component, cause_ref,
    propagation_hop, recovery_trace_id, epoch, jseq
)
SELECT
    failure_id, trace_id, span_id, at_us, failure_type, severity, ref, message, code, component, cause_ref,
    propagation_hop, recovery_trace_id, epoch, jseq
FROM json_to_recordset($1::json) AS row (
    failure_id text, trace_id text, span_id text, at_us bigint, failure_type text, severity text, ref text,
    message text, code text, component text, cause_ref text, propagation_hop bigint, recovery_trace_id text,
    epoch bigint, jseq bigint
);

-- name: write_run
-- `traces.md`: Recovery run, as it begins.
INSERT INTO recovery_run (
    recovery_id, recovery_trace_id, matrix_row, matrix_version, matrix_sha256, policy_sha256, started_us,
    trigger_type, trigger_ref, original_trace_id, original_span_id, entity, name, epoch, jseq
)
SELECT
    recovery_id, recovery_trace_id, matrix_row, matrix_version, matrix_sha256, policy_sha256, started_us,
    trigger_type, trigger_ref, original_trace_id, original_span_id, entity, name, epoch, jseq
FROM json_to_recordset($1::json) AS row (
    recovery_id text, recovery_trace_id text, matrix_row text, matrix_version text, matrix_sha256 text,
    policy_sha256 text, started_us bigint, trigger_type text, trigger_ref text, original_trace_id text,
    original_span_id text, entity text, name text, epoch bigint, jseq bigint
);

-- name: write_run_end
-- A run's outcome; `degraded` is no end, so its `ended_us` stays null.
UPDATE recovery_run SET
    final_outcome = row.final_outcome, ended_us = row.ended_us, net = row.net, jseq = row.jseq,
    month = CASE WHEN row.ended_us IS NOT NULL THEN amends_month() ELSE 0 END
FROM (SELECT DISTINCT ON (recovery_id) * FROM ROWS FROM (json_to_recordset($1::json) AS (
    recovery_id text, final_outcome text, ended_us bigint, net text, jseq bigint
)) WITH ORDINALITY AS written (
    recovery_id, final_outcome, ended_us, net, jseq, place
) ORDER BY recovery_id, place DESC) AS row
WHERE recovery_run.recovery_id = row.recovery_id AND recovery_run.recovery_id = ANY ($2::text[]) AND recovery_run.month = 0;

-- name: write_action
-- `traces.md`: Recovery action.
INSERT INTO recovery_action (
    action_id, recovery_trace_id, sequence, at_us, action_type, what, target_ref, outcome, duration_ms, metadata,
    operator, epoch, started_us, jseq
)
SELECT
    action_id, recovery_trace_id, sequence, at_us, action_type, what, target_ref, outcome, duration_ms, metadata,
    operator, epoch, started_us, jseq
FROM json_to_recordset($1::json) AS row (
    action_id text, recovery_trace_id text, sequence bigint, at_us bigint, action_type text, what text,
    target_ref text, outcome text, duration_ms bigint, metadata text, operator text, epoch bigint, started_us bigint,
    jseq bigint
);

-- name: write_compensation
-- `traces.md`: Compensation; append-only, unique by `comp_key`.
INSERT INTO compensation (
    compensation_id, action_id, recovery_trace_id, sequence, at_us, compensated_action_ref, compensated_action_type,
    compensation_type, target_ref, outcome, duration_ms, metadata, matrix_row, comp_key, jseq
)
SELECT
    compensation_id, action_id, recovery_trace_id, sequence, at_us, compensated_action_ref, compensated_action_type,
    compensation_type, target_ref, outcome, duration_ms, metadata, matrix_row, comp_key, jseq
FROM json_to_recordset($1::json) AS row (
    compensation_id text, action_id text, recovery_trace_id text, sequence bigint, at_us bigint,
    compensated_action_ref text, compensated_action_type text, compensation_type text, target_ref text, outcome text,
    duration_ms bigint, metadata text, matrix_row text, comp_key text, jseq bigint
);

-- name: write_case
-- An operator case as it now stands.
INSERT INTO ops_case AS known (
    case_id, kind, target_ref, entity, state, opened_us, resolved_us, recovery_trace_id, commands, evidence, jseq
)
SELECT
    case_id, kind, target_ref, entity, state, opened_us, resolved_us, recovery_trace_id, commands, evidence, jseq
FROM json_to_recordset($1::json) AS row (
    case_id text, kind text, target_ref text, entity text, state text, opened_us bigint, resolved_us bigint,
    recovery_trace_id text, commands text, evidence text, jseq bigint
)
ON CONFLICT (case_id) DO UPDATE SET
    state = excluded.state, resolved_us = excluded.resolved_us, jseq = excluded.jseq,
    recovery_trace_id = CASE excluded.recovery_trace_id WHEN '' THEN known.recovery_trace_id ELSE excluded.recovery_trace_id END,
    evidence = CASE excluded.evidence WHEN '{}' THEN known.evidence ELSE excluded.evidence END;

-- name: write_quarantine
-- A message that an actor could not digest, set aside with its error.
INSERT INTO message_quarantine (
    message_id, entity, type, body, error, at_us, jseq
)
SELECT
    message_id, entity, type, body, error, at_us, jseq
FROM json_to_recordset($1::json) AS row (
    message_id text, entity text, type text, body text, error text, at_us bigint, jseq bigint
);

-- name: write_audit_log
-- An audit entry in the chain (`tables.md`, audit_log).
INSERT INTO audit_log (
    audit_id, seq, at_us, actor, action, target_ref, from_state, to_state, reason, request_id, trace_id,
    recovery_trace_id, epoch, details, prev_hash, hash, jseq
)
SELECT
    audit_id, seq, at_us, actor, action, target_ref, from_state, to_state, reason, request_id, trace_id,
    recovery_trace_id, epoch, details::json, prev_hash, hash, jseq
FROM json_to_recordset($1::json) AS row (
    audit_id text, seq bigint, at_us bigint, actor text, action text, target_ref text, from_state text,
    to_state text, reason text, request_id text, trace_id text, recovery_trace_id text, epoch bigint, details text,
    prev_hash text, hash text, jseq bigint
);

-- name: write_assignment
-- The tie between an allocation and its node: reserved, active, ended (A1: one live per node).
INSERT INTO assignments AS known (
    allocation_id, node_id, state, since_us, ended_us, jseq
)
SELECT
    allocation_id, node_id, state, since_us, ended_us, jseq
FROM json_to_recordset($1::json) AS row (
    allocation_id text, node_id text, state text, since_us bigint, ended_us bigint, jseq bigint
)
ON CONFLICT (allocation_id) DO UPDATE SET
    state = excluded.state, ended_us = excluded.ended_us, jseq = excluded.jseq;

-- name: live_assignment
-- What is live of assignments, as it was committed.
SELECT
    allocation_id, node_id, state, since_us, ended_us
FROM assignments WHERE state NOT IN ('ended')
ORDER BY jseq, allocation_id;

-- name: after_assignment
-- What of assignments has its ended_us after an instant.
SELECT
    allocation_id, node_id, state, since_us, ended_us
FROM assignments WHERE ended_us > $1
ORDER BY ended_us, allocation_id;

-- name: write_debt
-- A cleanup a node still owes; settled when `settled_us` is set.
INSERT INTO debts AS known (
    debt_id, node_id, kind, target_ref, allocation_id, attachment_id, attempts, since_us, settled_us, jseq
)
SELECT
    debt_id, node_id, kind, target_ref, allocation_id, attachment_id, attempts, since_us, settled_us, jseq
FROM json_to_recordset($1::json) AS row (
    debt_id text, node_id text, kind text, target_ref text, allocation_id text, attachment_id text, attempts bigint,
    since_us bigint, settled_us bigint, jseq bigint
)
ON CONFLICT (debt_id) DO UPDATE SET
    attempts = excluded.attempts, settled_us = excluded.settled_us, jseq = excluded.jseq;

-- name: live_debt
-- What is live of debts, as it was committed.
SELECT
    debt_id, node_id, kind, target_ref, allocation_id, attachment_id, attempts, since_us, settled_us
FROM debts WHERE settled_us IS NULL
ORDER BY jseq, debt_id;

-- name: write_meter
-- The usage clock of one allocation (`tables.md`, meter).
INSERT INTO meters AS known (
    meter_id, allocation_id, account_id, state, rate_uminor_per_hour, policy_version, policy_sha256, started_us,
    stopped_us, stop_cause, posted_through_us, unit_us, window_us, jseq
)
SELECT
    meter_id, allocation_id, account_id, state, rate_uminor_per_hour, policy_version, policy_sha256, started_us,
    stopped_us, stop_cause, posted_through_us, unit_us, window_us, jseq
FROM json_to_recordset($1::json) AS row (
    meter_id text, allocation_id text, account_id text, state text, rate_uminor_per_hour bigint, policy_version text,
    policy_sha256 text, started_us bigint, stopped_us bigint, stop_cause text, posted_through_us bigint,
    unit_us bigint, window_us bigint, jseq bigint
)
ON CONFLICT (meter_id) DO UPDATE SET
    state = excluded.state, stop_cause = excluded.stop_cause, posted_through_us = excluded.posted_through_us,
    jseq = excluded.jseq, stopped_us = least(known.stopped_us, excluded.stopped_us);

-- name: live_meter
-- What is live of meters, as it was committed.
SELECT
    meter_id, allocation_id, account_id, state, rate_uminor_per_hour, policy_version, policy_sha256, started_us,
    stopped_us, stop_cause, posted_through_us, unit_us, window_us
FROM meters WHERE state IN ('accruing')
ORDER BY jseq, meter_id;

-- name: find_meter
-- The row of meters with that key.
SELECT
    meter_id, allocation_id, account_id, state, rate_uminor_per_hour, policy_version, policy_sha256, started_us,
    stopped_us, stop_cause, posted_through_us, unit_us, window_us
FROM meters WHERE meter_id = $1;

-- name: write_ledger
-- An entry of an account's ledger: append-only, amounts of minor units, one per key for ever (credit-policy.md).
INSERT INTO ledger_entries (
    entry_id, account_id, meter_id, entry_type, amount_minor, currency, idempotency_key, payload_hash, rule_id,
    window_start_us, created_us, jseq
)
SELECT
    entry_id, account_id, meter_id, entry_type, amount_minor, currency, idempotency_key, payload_hash, rule_id,
    window_start_us, created_us, jseq
FROM json_to_recordset($1::json) AS row (
    entry_id text, account_id text, meter_id text, entry_type text, amount_minor bigint, currency text,
    idempotency_key text, payload_hash text, rule_id text, window_start_us bigint, created_us bigint, jseq bigint
);

-- name: write_stripe_event
-- An event of Stripe's by its id, one for ever: what came of it, and since when we know (R06).
INSERT INTO stripe_events AS known (
    event_id, type, payment_id, state, account_id, received_us, jseq
)
SELECT
    event_id, type, payment_id, state, account_id, received_us, jseq
FROM json_to_recordset($1::json) AS row (
    event_id text, type text, payment_id text, state text, account_id text, received_us bigint, jseq bigint
)
ON CONFLICT (event_id) DO UPDATE SET
    state = excluded.state, account_id = excluded.account_id, jseq = excluded.jseq;

-- name: find_stripe_event
-- The row of stripe_events with that key.
SELECT
    event_id, type, payment_id, state, account_id, received_us
FROM stripe_events WHERE event_id = $1;

-- name: write_mirror
-- A credit of the ledger on its way to Stripe (`owed`), there (`done`), or given up (`failed`).
INSERT INTO mirrored_credits AS known (
    ledger_key, account_id, customer, amount_minor, currency, state, first_us, generation, transaction, jseq
)
SELECT
    ledger_key, account_id, customer, amount_minor, currency, state, first_us, generation, transaction, jseq
FROM json_to_recordset($1::json) AS row (
    ledger_key text, account_id text, customer text, amount_minor bigint, currency text, state text, first_us bigint,
    generation bigint, transaction text, jseq bigint
)
ON CONFLICT (ledger_key) DO UPDATE SET
    state = excluded.state, generation = excluded.generation, transaction = excluded.transaction,
    jseq = excluded.jseq;

-- name: write_grant
-- A grant at a storage provider: intended before the provider is asked, and kept for ever (`provider_grant`).
INSERT INTO provider_grants AS known (
    grant_id, namespace_id, node_id, provider_id, mode, state, changed_us, jseq
)
SELECT
    grant_id, namespace_id, node_id, provider_id, mode, state, changed_us, jseq
FROM json_to_recordset($1::json) AS row (
    grant_id text, namespace_id text, node_id text, provider_id text, mode text, state text, changed_us bigint,
    jseq bigint
)
ON CONFLICT (grant_id) DO UPDATE SET
    state = excluded.state, changed_us = excluded.changed_us, jseq = excluded.jseq;

-- name: write_nodes_seen
-- When the nodes of one part of the fleet were last heard: a checkpoint of the detector, {node: [boot id, us]}.
INSERT INTO nodes_seen AS known (
    part, seen, jseq
)
SELECT
    part, seen::json, jseq
FROM json_to_recordset($1::json) AS row (
    part text, seen text, jseq bigint
)
ON CONFLICT (part) DO UPDATE SET
    seen = excluded.seen, jseq = excluded.jseq;

-- name: live_nodes_seen
-- What is live of nodes_seen, as it was committed.
SELECT
    part, seen
FROM nodes_seen
ORDER BY jseq, part;

-- name: write_node_seen
-- When a node was last heard, as releases up to 0.3 wrote it, a row each; read until they are gone.
INSERT INTO node_seen AS known (
    node_id, boot_id, last_heartbeat_us, jseq
)
SELECT
    node_id, boot_id, last_heartbeat_us, jseq
FROM json_to_recordset($1::json) AS row (
    node_id text, boot_id text, last_heartbeat_us bigint, jseq bigint
)
ON CONFLICT (node_id) DO UPDATE SET
    boot_id = excluded.boot_id, last_heartbeat_us = excluded.last_heartbeat_us, jseq = excluded.jseq
WHERE known.last_heartbeat_us < excluded.last_heartbeat_us;

-- name: live_node_seen
-- What is live of node_seen, as it was committed.
SELECT
    node_id, boot_id, last_heartbeat_us
FROM node_seen
ORDER BY jseq, node_id;

-- name: state_accounts
-- Compare-and-set; a row whose version does not fit is left alone, and the count tells.
INSERT INTO accounts AS known (
    account_id, state, version, due_us, body, live, ended_state, stripe_customer_id
)
SELECT
    id, state, version, due_us, body::jsonb, live, ended_state, body::jsonb ->> 'stripe_customer_id'
FROM json_to_recordset($1::json) AS row (
    id text, state text, version bigint, due_us bigint, body text, live boolean, ended_state text
)
ON CONFLICT (account_id) DO UPDATE SET
    state = excluded.state, version = excluded.version, due_us = excluded.due_us, body = excluded.body,
    live = excluded.live, ended_state = excluded.ended_state, stripe_customer_id = excluded.stripe_customer_id
WHERE known.version = excluded.version - 1;

-- name: require_accounts
-- Of these, the rows that are in one of the states and of the epoch that a turn requires; they stay so.
SELECT held.account_id AS id
FROM json_to_recordset($1::json) AS wanted (kind text, id text, states text, epoch bigint)
JOIN accounts AS held ON held.account_id = wanted.id
WHERE held.account_id = ANY ($2::text[])
  AND held.state = ANY (string_to_array(wanted.states, ','))
  AND (wanted.epoch IS NULL OR wanted.epoch = coalesce((held.body ->> 'epoch')::bigint, 0))
FOR SHARE OF held;

-- name: free_accounts
-- Of these, the rows nobody else holds right now.
SELECT account_id AS id FROM accounts WHERE account_id = ANY ($1::text[]) FOR UPDATE SKIP LOCKED;

-- name: read_accounts
-- One actor.
SELECT due_us, body::text AS body FROM accounts WHERE account_id = $1;

-- name: live_accounts
-- Every actor that still lives or owes.
SELECT account_id AS id, due_us, body::text AS body FROM accounts
WHERE live ORDER BY account_id;

-- name: state_payments
-- Compare-and-set; a row whose version does not fit is left alone, and the count tells.
INSERT INTO payments AS known (
    payment_id, state, version, due_us, body, live, ended_state, account_id
)
SELECT
    id, state, version, due_us, body::jsonb, live, ended_state, body::jsonb ->> 'account_id'
FROM json_to_recordset($1::json) AS row (
    id text, state text, version bigint, due_us bigint, body text, live boolean, ended_state text
)
ON CONFLICT (payment_id) DO UPDATE SET
    state = excluded.state, version = excluded.version, due_us = excluded.due_us, body = excluded.body,
    live = excluded.live, ended_state = excluded.ended_state, account_id = excluded.account_id
WHERE known.version = excluded.version - 1;

-- name: require_payments
-- Of these, the rows that are in one of the states and of the epoch that a turn requires; they stay so.
SELECT held.payment_id AS id
FROM json_to_recordset($1::json) AS wanted (kind text, id text, states text, epoch bigint)
JOIN payments AS held ON held.payment_id = wanted.id
WHERE held.payment_id = ANY ($2::text[])
  AND held.state = ANY (string_to_array(wanted.states, ','))
  AND (wanted.epoch IS NULL OR wanted.epoch = coalesce((held.body ->> 'epoch')::bigint, 0))
FOR SHARE OF held;

-- name: free_payments
-- Of these, the rows nobody else holds right now.
SELECT payment_id AS id FROM payments WHERE payment_id = ANY ($1::text[]) FOR UPDATE SKIP LOCKED;

-- name: read_payments
-- One actor.
SELECT due_us, body::text AS body FROM payments WHERE payment_id = $1;

-- name: live_payments
-- Every actor that still lives or owes.
SELECT payment_id AS id, due_us, body::text AS body FROM payments
WHERE live ORDER BY payment_id;

-- name: state_nodes
-- Compare-and-set; a row whose version does not fit is left alone, and the count tells.
INSERT INTO nodes AS known (
    node_id, state, version, due_us, body, live, ended_state, ssh_host_key
)
SELECT
    id, state, version, due_us, body::jsonb, live, ended_state, body::jsonb ->> 'ssh_host_key'
FROM json_to_recordset($1::json) AS row (
    id text, state text, version bigint, due_us bigint, body text, live boolean, ended_state text
)
ON CONFLICT (node_id) DO UPDATE SET
    state = excluded.state, version = excluded.version, due_us = excluded.due_us, body = excluded.body,
    live = excluded.live, ended_state = excluded.ended_state, ssh_host_key = excluded.ssh_host_key
WHERE known.version = excluded.version - 1;

-- name: require_nodes
-- Of these, the rows that are in one of the states and of the epoch that a turn requires; they stay so.
SELECT held.node_id AS id
FROM json_to_recordset($1::json) AS wanted (kind text, id text, states text, epoch bigint)
JOIN nodes AS held ON held.node_id = wanted.id
WHERE held.node_id = ANY ($2::text[])
  AND held.state = ANY (string_to_array(wanted.states, ','))
  AND (wanted.epoch IS NULL OR wanted.epoch = coalesce((held.body ->> 'epoch')::bigint, 1))
FOR SHARE OF held;

-- name: free_nodes
-- Of these, the rows nobody else holds right now.
SELECT node_id AS id FROM nodes WHERE node_id = ANY ($1::text[]) FOR UPDATE SKIP LOCKED;

-- name: read_nodes
-- One actor.
SELECT due_us, body::text AS body FROM nodes WHERE node_id = $1;

-- name: live_nodes
-- Every actor that still lives or owes.
SELECT node_id AS id, due_us, body::text AS body FROM nodes
WHERE live ORDER BY node_id;

-- name: state_allocations
-- Compare-and-set; a row whose version does not fit is left alone, and the count tells.
INSERT INTO allocations AS known (
    allocation_id, state, version, due_us, body, live, ended_state, account_id, node_id, external_ref, failure_code,
    cleanup_pending
)
SELECT
    id, state, version, due_us, body::jsonb, live, ended_state, body::jsonb ->> 'account_id',
    body::jsonb ->> 'node_id', body::jsonb ->> 'external_ref', body::jsonb ->> 'failure_code',
    coalesce((body::jsonb ->> 'cleanup_pending')::boolean, false)
FROM json_to_recordset($1::json) AS row (
    id text, state text, version bigint, due_us bigint, body text, live boolean, ended_state text
)
ON CONFLICT (allocation_id) DO UPDATE SET
    state = excluded.state, version = excluded.version, due_us = excluded.due_us, body = excluded.body,
    live = excluded.live, ended_state = excluded.ended_state, account_id = excluded.account_id,
    node_id = excluded.node_id, external_ref = excluded.external_ref, failure_code = excluded.failure_code,
    cleanup_pending = excluded.cleanup_pending
WHERE known.version = excluded.version - 1;

-- name: require_allocations
-- Of these, the rows that are in one of the states and of the epoch that a turn requires; they stay so.
SELECT held.allocation_id AS id
FROM json_to_recordset($1::json) AS wanted (kind text, id text, states text, epoch bigint)
JOIN allocations AS held ON held.allocation_id = wanted.id
WHERE held.allocation_id = ANY ($2::text[])
  AND held.state = ANY (string_to_array(wanted.states, ','))
  AND (wanted.epoch IS NULL OR wanted.epoch = coalesce((held.body ->> 'epoch')::bigint, 0))
FOR SHARE OF held;

-- name: free_allocations
-- Of these, the rows nobody else holds right now.
SELECT allocation_id AS id FROM allocations WHERE allocation_id = ANY ($1::text[]) FOR UPDATE SKIP LOCKED;

-- name: read_allocations
-- One actor.
SELECT due_us, body::text AS body FROM allocations WHERE allocation_id = $1;

-- name: live_allocations
-- Every actor that still lives or owes.
SELECT allocation_id AS id, due_us, body::text AS body FROM allocations
WHERE live ORDER BY allocation_id;

-- name: state_platform_storage_attachments
-- Compare-and-set; a row whose version does not fit is left alone, and the count tells.
INSERT INTO platform_storage_attachments AS known (
    attachment_id, state, version, due_us, body, live, ended_state, allocation_id, namespace_id, node_id, account_id,
    rw_holder
)
SELECT
    id, state, version, due_us, body::jsonb, live, ended_state, body::jsonb ->> 'allocation_id',
    body::jsonb ->> 'namespace_id', body::jsonb ->> 'node_id', body::jsonb ->> 'account_id',
    body::jsonb ->> 'rw_holder'
FROM json_to_recordset($1::json) AS row (
    id text, state text, version bigint, due_us bigint, body text, live boolean, ended_state text
)
ON CONFLICT (attachment_id) DO UPDATE SET
    state = excluded.state, version = excluded.version, due_us = excluded.due_us, body = excluded.body,
    live = excluded.live, ended_state = excluded.ended_state, allocation_id = excluded.allocation_id,
    namespace_id = excluded.namespace_id, node_id = excluded.node_id, account_id = excluded.account_id,
    rw_holder = excluded.rw_holder
WHERE known.version = excluded.version - 1;

-- name: require_platform_storage_attachments
-- Of these, the rows that are in one of the states and of the epoch that a turn requires; they stay so.
SELECT held.attachment_id AS id
FROM json_to_recordset($1::json) AS wanted (kind text, id text, states text, epoch bigint)
JOIN platform_storage_attachments AS held ON held.attachment_id = wanted.id
WHERE held.attachment_id = ANY ($2::text[])
  AND held.state = ANY (string_to_array(wanted.states, ','))
  AND (wanted.epoch IS NULL OR wanted.epoch = coalesce((held.body ->> 'epoch')::bigint, 0))
FOR SHARE OF held;

-- name: free_platform_storage_attachments
-- Of these, the rows nobody else holds right now.
SELECT attachment_id AS id FROM platform_storage_attachments WHERE attachment_id = ANY ($1::text[]) FOR UPDATE SKIP LOCKED;

-- name: read_platform_storage_attachments
-- One actor.
SELECT due_us, body::text AS body FROM platform_storage_attachments WHERE attachment_id = $1;

-- name: live_platform_storage_attachments
-- Every actor that still lives or owes.
SELECT attachment_id AS id, due_us, body::text AS body FROM platform_storage_attachments
WHERE live ORDER BY attachment_id;

-- name: state_namespaces
-- Compare-and-set; a row whose version does not fit is left alone, and the count tells.
INSERT INTO namespaces AS known (
    namespace_id, state, version, due_us, body, live, ended_state, account_id, provider_id
)
SELECT
    id, state, version, due_us, body::jsonb, live, ended_state, body::jsonb ->> 'account_id',
    body::jsonb ->> 'provider_id'
FROM json_to_recordset($1::json) AS row (
    id text, state text, version bigint, due_us bigint, body text, live boolean, ended_state text
)
ON CONFLICT (namespace_id) DO UPDATE SET
    state = excluded.state, version = excluded.version, due_us = excluded.due_us, body = excluded.body,
    live = excluded.live, ended_state = excluded.ended_state, account_id = excluded.account_id,
    provider_id = excluded.provider_id
WHERE known.version = excluded.version - 1;

-- name: require_namespaces
-- Of these, the rows that are in one of the states and of the epoch that a turn requires; they stay so.
SELECT held.namespace_id AS id
FROM json_to_recordset($1::json) AS wanted (kind text, id text, states text, epoch bigint)
JOIN namespaces AS held ON held.namespace_id = wanted.id
WHERE held.namespace_id = ANY ($2::text[])
  AND held.state = ANY (string_to_array(wanted.states, ','))
  AND (wanted.epoch IS NULL OR wanted.epoch = coalesce((held.body ->> 'epoch')::bigint, 0))
FOR SHARE OF held;

-- name: free_namespaces
-- Of these, the rows nobody else holds right now.
SELECT namespace_id AS id FROM namespaces WHERE namespace_id = ANY ($1::text[]) FOR UPDATE SKIP LOCKED;

-- name: read_namespaces
-- One actor.
SELECT due_us, body::text AS body FROM namespaces WHERE namespace_id = $1;

-- name: live_namespaces
-- Every actor that still lives or owes.
SELECT namespace_id AS id, due_us, body::text AS body FROM namespaces
WHERE live ORDER BY namespace_id;

-- name: state_actors
-- Compare-and-set; a row whose version does not fit is left alone, and the count tells.
INSERT INTO actors AS known (
    kind, id, state, version, due_us, body, live, ended_state
)
SELECT
    kind, id, state, version, due_us, body::jsonb, live, ended_state
FROM json_to_recordset($1::json) AS row (
    kind text, id text, state text, version bigint, due_us bigint, body text, live boolean, ended_state text
)
ON CONFLICT (kind, id) DO UPDATE SET
    state = excluded.state, version = excluded.version, due_us = excluded.due_us, body = excluded.body,
    live = excluded.live, ended_state = excluded.ended_state
WHERE known.version = excluded.version - 1;

-- name: require_actors
-- Of these, the rows that are in one of the states and of the epoch that a turn requires; they stay so.
SELECT held.id AS id
FROM json_to_recordset($1::json) AS wanted (kind text, id text, states text, epoch bigint)
JOIN actors AS held ON held.kind = wanted.kind AND held.id = wanted.id
WHERE held.id = ANY ($2::text[])
  AND held.state = ANY (string_to_array(wanted.states, ','))
  AND (wanted.epoch IS NULL OR wanted.epoch = coalesce((held.body ->> 'epoch')::bigint, 0))
FOR SHARE OF held;

-- name: free_actors
-- Of these, the rows nobody else holds right now.
SELECT id AS id FROM actors WHERE kind = $1 AND id = ANY ($2::text[]) FOR UPDATE SKIP LOCKED;

-- name: read_actors
-- One actor.
SELECT due_us, body::text AS body FROM actors WHERE kind = $1 AND id = $2;

-- name: live_actors
-- Every actor that still lives or owes.
SELECT id AS id, due_us, body::text AS body FROM actors
WHERE kind = $1 AND live ORDER BY id;

-- name: state_notifications
-- Compare-and-set; a row whose version does not fit is left alone, and the count tells.
INSERT INTO notifications AS known (
    notification_id, state, version, due_us, body, live, ended_state, account_id, kind, entity, dedupe_key
)
SELECT
    id, state, version, due_us, body::jsonb, live, ended_state, body::jsonb ->> 'account_id', body::jsonb ->> 'kind',
    body::jsonb ->> 'entity', body::jsonb ->> 'dedupe_key'
FROM json_to_recordset($1::json) AS row (
    id text, state text, version bigint, due_us bigint, body text, live boolean, ended_state text
)
ON CONFLICT (notification_id) DO UPDATE SET
    state = excluded.state, version = excluded.version, due_us = excluded.due_us, body = excluded.body,
    live = excluded.live, ended_state = excluded.ended_state, account_id = excluded.account_id, kind = excluded.kind,
    entity = excluded.entity, dedupe_key = excluded.dedupe_key
WHERE known.version = excluded.version - 1;

-- name: require_notifications
-- Of these, the rows that are in one of the states and of the epoch that a turn requires; they stay so.
SELECT held.notification_id AS id
FROM json_to_recordset($1::json) AS wanted (kind text, id text, states text, epoch bigint)
JOIN notifications AS held ON held.notification_id = wanted.id
WHERE held.notification_id = ANY ($2::text[])
  AND held.state = ANY (string_to_array(wanted.states, ','))
  AND (wanted.epoch IS NULL OR wanted.epoch = coalesce((held.body ->> 'epoch')::bigint, 0))
FOR SHARE OF held;

-- name: free_notifications
-- Of these, the rows nobody else holds right now.
SELECT notification_id AS id FROM notifications WHERE notification_id = ANY ($1::text[]) FOR UPDATE SKIP LOCKED;

-- name: read_notifications
-- One actor.
SELECT due_us, body::text AS body FROM notifications WHERE notification_id = $1;

-- name: live_notifications
-- Every actor that still lives or owes.
SELECT notification_id AS id, due_us, body::text AS body FROM notifications
WHERE live ORDER BY notification_id;
