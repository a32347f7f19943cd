-- What outsiders read (schema public_v1, stable across releases), and the role that reads it and nothing else.
-- Views run with their owner's rights. The span and invariant views stand in the migrations that follow.

CREATE SCHEMA public_v1;

-- RFC 3339, UTC, microseconds.
CREATE FUNCTION amends_time(us bigint) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    RETURN to_char(timestamp 'epoch' + us * interval '1 microsecond', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

-- The span id of a record and its phase; `amends.values.ids.span_id` derives the same.
CREATE FUNCTION amends_span_id(phase text, id text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN left(md5(phase || '/' || id), 16);

CREATE INDEX debts_allocation ON debts (allocation_id);
CREATE INDEX ledger_entries_account ON ledger_entries (account_id, entry_id);
CREATE INDEX recovery_run_open ON recovery_run (entity) WHERE ended_us IS NULL;

-- State bodies leave out what has its default: a missing key is read as the default of its Struct.

CREATE VIEW public_v1.account AS
SELECT
    account_id,
    body ->> 'currency' AS currency,
    body ->> 'stripe_customer_id' AS stripe_customer_id,
    (body ->> 'created_us')::bigint AS created_us,
    state,
    version
FROM accounts;

CREATE VIEW public_v1.node AS
SELECT
    nodes.node_id,
    nodes.state,
    coalesce(body -> 'labels', '{}') AS labels,
    EXISTS (SELECT FROM debts WHERE debts.node_id = nodes.node_id AND settled_us IS NULL) AS dirty,
    CASE assignments.state WHEN 'reserved' THEN assignments.allocation_id END AS reserved_by,
    CASE assignments.state WHEN 'active' THEN assignments.allocation_id END AS allocated_to,
    coalesce((body ->> 'epoch')::bigint, 1) AS epoch,
    body ->> 'boot_id' AS boot_id,
    greatest((body ->> 'last_heartbeat_us')::bigint, node_seen.last_heartbeat_us) AS last_heartbeat_us,
    coalesce((body ->> 'flap_count')::integer, 0) AS flap_count,
    coalesce(body -> 'quarantine_reasons', '[]') AS quarantine_reasons,
    nodes.version
FROM nodes
LEFT JOIN assignments ON assignments.node_id = nodes.node_id AND assignments.state <> 'ended'
LEFT JOIN node_seen ON node_seen.node_id = nodes.node_id
    AND node_seen.last_heartbeat_us >= (nodes.body ->> 'registered_us')::bigint;  -- not of an earlier one of that name

-- What is still owed; a settled debt is no debt.
CREATE VIEW public_v1.debt AS
SELECT debt_id, node_id, kind, target_ref, allocation_id, attachment_id, attempts, since_us
FROM debts WHERE settled_us IS NULL;

CREATE VIEW public_v1.allocation AS
SELECT
    allocation_id,
    body ->> 'account_id' AS account_id,
    body ->> 'node_id' AS node_id,
    state,
    body ->> 'failure_code' AS failure_code,
    body ->> 'release_cause' AS release_cause,
    coalesce((body ->> 'cleanup_pending')::boolean, false) AS cleanup_pending,
    coalesce((body ->> 'cleanup_attempts')::integer, 0) AS cleanup_attempts,
    coalesce(body ->> 'billing_state', 'none') AS billing_state,
    (body ->> 'rate_uminor_per_hour')::bigint AS rate_uminor_per_hour,
    body ->> 'attempt_id' AS attempt_id,
    body ->> 'external_ref' AS external_ref,
    (body ->> 'requested_us')::bigint AS requested_us,
    (body ->> 'activated_us')::bigint AS activated_us,
    (body ->> 'ended_us')::bigint AS ended_us,
    nullif(body ->> 'trace_id', '') AS trace_id,
    version
FROM allocations;

CREATE VIEW public_v1.meter AS
SELECT
    meter_id, allocation_id, account_id, state, rate_uminor_per_hour, policy_version, policy_sha256, started_us,
    stopped_us, stop_cause, posted_through_us
FROM meters;

CREATE VIEW public_v1.ledger_entry AS
SELECT
    entry_id, account_id, meter_id, entry_type, amount_minor, currency, idempotency_key, payload_hash, rule_id,
    window_start_us, created_us
FROM ledger_entries;

CREATE VIEW public_v1.notification AS
SELECT
    notification_id,
    body ->> 'audience' AS audience,
    body ->> 'account_id' AS account_id,
    body ->> 'kind' AS kind,
    body ->> 'entity' AS entity,
    state,
    coalesce((body ->> 'attempts')::integer, 0) AS attempts,
    body ->> 'dedupe_key' AS dedupe_key,
    (body ->> 'created_us')::bigint AS created_us,
    (body ->> 'sent_us')::bigint AS sent_us,
    version
FROM notifications;

CREATE VIEW public_v1.outbox AS
SELECT
    outbox_id, entity, subject, state, attempts, created_us, published_us, stream, nullif(trace_id, '') AS trace_id
FROM outbox;

CREATE VIEW public_v1.step AS
SELECT
    step_id, entity, name, attempt, state, idempotency_key, started_us, ended_us, next_attempt_us, target,
    nullif(code, '') AS code, nullif(message, '') AS message, nullif(trace_id, '') AS trace_id,
    amends_span_id('step', step_id) AS span_id
FROM step;

CREATE VIEW public_v1.failure AS
SELECT
    failure_id, nullif(trace_id, '') AS trace_id, nullif(span_id, '') AS span_id, amends_time(at_us) AS timestamp,
    failure_type, severity, ref, message, code, component, nullif(cause_ref, '') AS cause_ref, propagation_hop,
    nullif(recovery_trace_id, '') AS recovery_trace_id, at_us
FROM failure;

CREATE VIEW public_v1.recovery_run AS
SELECT
    recovery_id, recovery_trace_id, matrix_row, matrix_version, matrix_sha256,
    nullif(policy_sha256, '') AS policy_sha256, amends_time(started_us) AS started_at,
    amends_time(ended_us) AS ended_at, trigger_type, nullif(trigger_ref, '') AS trigger_ref,
    nullif(original_trace_id, '') AS original_trace_id, final_outcome, entity, name, net::json AS net,
    nullif(original_span_id, '') AS original_span_id, started_us, ended_us
FROM recovery_run;

CREATE VIEW public_v1.recovery_action AS
SELECT
    action_id, recovery_trace_id, sequence, amends_time(at_us) AS timestamp, action_type, target_ref, outcome,
    duration_ms, metadata::json AS metadata, what, nullif(operator, '') AS operator, at_us
FROM recovery_action;

CREATE VIEW public_v1.compensation AS
SELECT
    compensation_id, recovery_trace_id, sequence, amends_time(at_us) AS timestamp, compensated_action_ref,
    compensated_action_type, compensation_type, target_ref, outcome, duration_ms, metadata::json AS metadata,
    matrix_row, comp_key, action_id, at_us
FROM compensation;

-- The hash is over the table's own values: null here in request_id, trace_id and recovery_trace_id is '' there.
CREATE VIEW public_v1.audit_log AS
SELECT
    audit_id, seq, at_us, actor, action, target_ref, from_state, to_state, reason,
    nullif(request_id, '') AS request_id, nullif(trace_id, '') AS trace_id,
    nullif(recovery_trace_id, '') AS recovery_trace_id, epoch, details, prev_hash, hash
FROM audit_log;

CREATE VIEW public_v1.ops_case AS
SELECT
    case_id, kind, target_ref, state, opened_us, resolved_us, nullif(recovery_trace_id, '') AS recovery_trace_id,
    commands::json AS commands, evidence::json AS evidence, entity
FROM ops_case;

-- The reader's role: made if our own role may make roles; else whoever runs the database makes it and grants this.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'amends_reader') THEN
        CREATE ROLE amends_reader LOGIN;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'the role amends_reader was not made: % may not make roles', current_user;
    WHEN duplicate_object OR unique_violation THEN
        RAISE NOTICE 'the role amends_reader was made by another database of this server just now';
END $$;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'amends_reader') THEN
        GRANT USAGE ON SCHEMA public_v1 TO amends_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA public_v1 TO amends_reader;
        -- The views of later migrations too.
        ALTER DEFAULT PRIVILEGES IN SCHEMA public_v1 GRANT SELECT ON TABLES TO amends_reader;
    END IF;
END $$;
