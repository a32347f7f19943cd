-- What outsiders read (`tables.md`): schema public_v1, stable across releases. Views run with their owner's rights.
-- All files of this folder are applied again whenever one of them changes, after the migrations (`schema.py`). A view
-- gets new columns at its end only: other people's views stand on ours, and nothing here is ever dropped.
-- State bodies leave out what has its default: a missing key is read as the default of its Struct. The `listed_…` views
-- are for lists by state: `live`, the runtime keeps it, since it has not ended or still owes something; `ended_state`,
-- the state it has ended in, else null.

CREATE OR REPLACE VIEW public_v1.account AS
SELECT
    account_id,
    body ->> 'currency' AS currency,
    stripe_customer_id,
    (body ->> 'created_us')::bigint AS created_us,
    state,
    version
FROM accounts;

CREATE OR REPLACE VIEW public_v1.node AS
SELECT
    nodes.node_id,
    nodes.state,
    coalesce(body -> 'labels', '{}') AS labels,
    EXISTS (SELECT FROM debts WHERE debts.node_id = nodes.node_id AND settled_us IS NULL) AS dirty,
    CASE assignments.state WHEN 'reserved' THEN assignments.allocation_id END AS reserved_by,
    CASE assignments.state WHEN 'active' THEN assignments.allocation_id END AS allocated_to,
    coalesce((body ->> 'epoch')::bigint, 1) AS epoch,
    body ->> 'boot_id' AS boot_id,
    greatest((body ->> 'last_heartbeat_us')::bigint, node_seen.last_heartbeat_us, part.last_heartbeat_us)
        AS last_heartbeat_us,
    coalesce((body ->> 'flap_count')::integer, 0) AS flap_count,
    coalesce(body -> 'quarantine_reasons', '[]') AS quarantine_reasons,
    nodes.version
FROM nodes
LEFT JOIN assignments ON assignments.node_id = nodes.node_id AND assignments.state <> 'ended'
LEFT JOIN node_seen ON node_seen.node_id = nodes.node_id  -- of releases up to 0.3
    AND node_seen.last_heartbeat_us >= (nodes.body ->> 'registered_us')::bigint
LEFT JOIN LATERAL (
    SELECT (seen -> nodes.node_id ->> 1)::bigint AS last_heartbeat_us
    FROM nodes_seen WHERE nodes_seen.part = left(md5(nodes.node_id), 2)
) AS part ON part.last_heartbeat_us >= (nodes.body ->> 'registered_us')::bigint;

-- What is still owed; a settled debt is no debt.
CREATE OR REPLACE VIEW public_v1.debt AS
SELECT debt_id, node_id, kind, target_ref, allocation_id, attachment_id, attempts, since_us
FROM debts WHERE settled_us IS NULL;

CREATE OR REPLACE VIEW listed_allocation AS
SELECT
    allocation_id,
    account_id,
    node_id,
    state,
    failure_code,
    coalesce(body #>> '{ending,cause}', body ->> 'release_cause') AS release_cause,
    cleanup_pending,
    coalesce(body #>> '{cleanup,attempts}', body ->> 'cleanup_attempts', '0')::integer AS cleanup_attempts,
    coalesce(body #>> '{billing,state}', body ->> 'billing_state', 'none') AS billing_state,
    (body ->> 'rate_uminor_per_hour')::bigint AS rate_uminor_per_hour,
    coalesce(body #>> '{setup,attempt_id}', body ->> 'attempt_id') AS attempt_id,
    external_ref,
    coalesce(body #> '{rental,access}', body -> 'access') AS access,
    (body ->> 'requested_us')::bigint AS requested_us,
    coalesce(body #>> '{rental,activated_us}', body ->> 'activated_us')::bigint AS activated_us,
    coalesce(body #>> '{ending,ended_us}', body ->> 'ended_us')::bigint AS ended_us,
    nullif(body ->> 'trace_id', '') AS trace_id,
    version,
    live,
    ended_state
FROM allocations;

-- Of phases the bodies have parts; those that nobody has touched since 0.2 are flat.
CREATE OR REPLACE VIEW public_v1.allocation AS
SELECT
    allocation_id, account_id, node_id, state, failure_code, release_cause, cleanup_pending, cleanup_attempts,
    billing_state, rate_uminor_per_hour, attempt_id, external_ref, access, requested_us, activated_us, ended_us,
    trace_id, version
FROM listed_allocation;

CREATE OR REPLACE VIEW public_v1.meter AS
SELECT
    meter_id, allocation_id, account_id, state, rate_uminor_per_hour, policy_version, policy_sha256, started_us,
    stopped_us, stop_cause, posted_through_us
FROM meters;

CREATE OR REPLACE VIEW public_v1.ledger_entry AS
SELECT
    entry_id, account_id, meter_id, entry_type, amount_minor, currency, idempotency_key, payload_hash, rule_id,
    window_start_us, created_us
FROM ledger_entries;

-- One row for each payment object of Stripe's; `waiting`: events that are deferred, `booked`: entries by their key.
CREATE OR REPLACE VIEW public_v1.payment AS
SELECT
    payment_id,
    account_id,
    state,
    body ->> 'currency' AS currency,
    coalesce((body ->> 'amount_minor')::bigint, 0) AS amount_minor,
    (body ->> 'since_us')::bigint AS since_us,
    coalesce(jsonb_path_query_array(body, '$.waiting[*].event_id'), '[]') AS waiting,
    coalesce(body -> 'booked', '{}') AS booked,
    version
FROM payments;

CREATE OR REPLACE VIEW public_v1.stripe_event AS
SELECT event_id, type, state, account_id, received_us, payment_id
FROM stripe_events;

CREATE OR REPLACE VIEW public_v1.namespace AS
SELECT
    namespace_id,
    account_id,
    provider_id,
    state,
    (body ->> 'quota_bytes')::bigint AS quota_bytes,
    (body #>> '{usage,used_bytes}')::bigint AS used_bytes,
    body ->> 'flag' IS NOT NULL AS rw_blocked,
    body ->> 'flag' AS quota_flag,
    coalesce(body -> 'drift', '{}') AS drift,
    version
FROM namespaces;

CREATE OR REPLACE VIEW public_v1.attachment AS
SELECT
    attachment_id,
    allocation_id,
    namespace_id,
    node_id,
    body ->> 'mode' AS mode,
    body ->> 'mount_path' AS mount_path,
    state,
    body ->> 'reason' AS reason,
    body ->> 'attempt_id' AS attempt_id,
    body ->> 'grant_id' AS grant_id,
    nullif(body ->> 'trace_id', '') AS trace_id,
    version,
    account_id
FROM platform_storage_attachments;

CREATE OR REPLACE VIEW public_v1.provider_grant AS
SELECT grant_id, namespace_id, node_id, provider_id, mode, state FROM provider_grants;

CREATE OR REPLACE VIEW listed_notification AS
SELECT
    notification_id,
    body ->> 'audience' AS audience,
    account_id,
    kind,
    entity,
    state,
    coalesce((body ->> 'attempts')::integer, 0) AS attempts,
    dedupe_key,
    (body ->> 'created_us')::bigint AS created_us,
    (body ->> 'sent_us')::bigint AS sent_us,
    version,
    live,
    ended_state
FROM notifications;

CREATE OR REPLACE VIEW public_v1.notification AS
SELECT
    notification_id, audience, account_id, kind, entity, state, attempts, dedupe_key, created_us, sent_us, version
FROM listed_notification;

CREATE OR REPLACE VIEW public_v1.outbox AS
SELECT
    outbox_id, entity, subject, state, attempts, created_us, published_us, stream, nullif(trace_id, '') AS trace_id
FROM outbox;

CREATE OR REPLACE VIEW public_v1.step AS
SELECT
    step_id, entity, name, attempt, state, idempotency_key, started_us, ended_us, next_attempt_us, target,
    nullif(code, '') AS code, nullif(message, '') AS message, nullif(trace_id, '') AS trace_id,
    amends_span_id('step', step_id) AS span_id
FROM step;

CREATE OR REPLACE VIEW public_v1.failure AS
SELECT
    failure_id, nullif(trace_id, '') AS trace_id, nullif(span_id, '') AS span_id, amends_time(at_us) AS timestamp,
    failure_type, severity, ref, message, code, component, nullif(cause_ref, '') AS cause_ref, propagation_hop,
    nullif(recovery_trace_id, '') AS recovery_trace_id, at_us
FROM failure;

CREATE OR REPLACE VIEW public_v1.recovery_run AS
SELECT
    recovery_id, recovery_trace_id, matrix_row, matrix_version, matrix_sha256,
    nullif(policy_sha256, '') AS policy_sha256, amends_time(started_us) AS started_at,
    amends_time(ended_us) AS ended_at, trigger_type, nullif(trigger_ref, '') AS trigger_ref,
    nullif(original_trace_id, '') AS original_trace_id, final_outcome, entity, name, net::json AS net,
    nullif(original_span_id, '') AS original_span_id, started_us, ended_us
FROM recovery_run;

CREATE OR REPLACE VIEW public_v1.recovery_action AS
SELECT
    action_id, recovery_trace_id, sequence, amends_time(at_us) AS timestamp, action_type, target_ref, outcome,
    duration_ms, metadata::json AS metadata, what, nullif(operator, '') AS operator, at_us
FROM recovery_action;

CREATE OR REPLACE VIEW public_v1.compensation AS
SELECT
    compensation_id, recovery_trace_id, sequence, amends_time(at_us) AS timestamp, compensated_action_ref,
    compensated_action_type, compensation_type, target_ref, outcome, duration_ms, metadata::json AS metadata,
    matrix_row, comp_key, action_id, at_us
FROM compensation;

-- The hash is over the table's own values: null here in request_id, trace_id and recovery_trace_id is '' there.
CREATE OR REPLACE VIEW public_v1.audit_log AS
SELECT
    audit_id, seq, at_us, actor, action, target_ref, from_state, to_state, reason,
    nullif(request_id, '') AS request_id, nullif(trace_id, '') AS trace_id,
    nullif(recovery_trace_id, '') AS recovery_trace_id, epoch, details, prev_hash, hash
FROM audit_log;

-- What meters' ends were found to come to: what explains money stays when its month is archived.
CREATE OR REPLACE VIEW evaluation AS
SELECT audit_id, seq, at_us, target_ref, trace_id, recovery_trace_id, details
FROM public_v1.audit_log WHERE action = 'billing.credit.evaluated'
UNION ALL
SELECT audit_id, seq, at_us, target_ref, trace_id, recovery_trace_id, details FROM kept_evaluation;

CREATE OR REPLACE VIEW public_v1.ops_case AS
SELECT
    case_id, kind, target_ref, state, opened_us, resolved_us, nullif(recovery_trace_id, '') AS recovery_trace_id,
    commands::json AS commands, evidence::json AS evidence, entity
FROM ops_case;
