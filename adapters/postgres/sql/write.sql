-- The statements that commits are made of: one per kind of row, whole columns at a time.

-- name: write_command
-- A handled command and its kept reply.
INSERT INTO command (
    caller, key, body_hash, subject, request_id, trace_id, span_id, parent_span_id, entity, http,
    error_code, reply, received_us, replied_us, epoch, link, jseq
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::text[], $10::bigint[], $11::text[], $12::text[], $13::bigint[], $14::bigint[], $15::bigint[],
    $16::text[], $17::bigint[]
);

-- name: write_step
-- Intents of steps, and tries the runtime did itself.
INSERT INTO step (
    step_id, entity, name, attempt, state, idempotency_key, target, args, undo, trace_id, parent_span_id,
    started_us, ended_us, next_attempt_us, code, message, epoch, server_address, server_port, jseq
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::bigint[], $13::bigint[], $14::bigint[], $15::text[],
    $16::text[], $17::bigint[], $18::text[], $19::bigint[], $20::bigint[]
);

-- name: write_message
-- Durable messages to other actors.
INSERT INTO message (
    message_id, to_kind, to_id, type, body, trace_id, span_id, actor, request_id, sent_us, jseq
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::text[], $10::bigint[], $11::bigint[]
);

-- name: write_outbox
-- Events still to be published.
INSERT INTO outbox (
    outbox_id, entity, stream, subject, payload, trace_id, span_id, created_us, jseq
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
    $9::bigint[]
);

-- name: write_failure
-- Failures.
INSERT INTO failure (
    failure_id, trace_id, span_id, at_us, failure_type, severity, ref, message, code, component, cause_ref,
    propagation_hop, recovery_trace_id, epoch, jseq
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::bigint[], $13::text[], $14::bigint[], $15::bigint[]
);

-- name: write_recovery_run
-- Recovery runs as they begin.
INSERT INTO recovery_run (
    recovery_id, recovery_trace_id, matrix_row, matrix_version, matrix_sha256, policy_sha256, started_us,
    trigger_type, trigger_ref, original_trace_id, original_span_id, entity, name, epoch, jseq
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::bigint[]
);

-- name: write_recovery_action
-- Recovery actions.
INSERT INTO recovery_action (
    action_id, recovery_trace_id, sequence, at_us, action_type, what, target_ref, outcome, duration_ms,
    metadata, operator, epoch, started_us, jseq
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::bigint[], $10::text[], $11::text[], $12::bigint[], $13::bigint[], $14::bigint[]
);

-- name: write_compensation
-- Compensations; append-only.
INSERT INTO compensation (
    compensation_id, action_id, recovery_trace_id, sequence, at_us, compensated_action_ref,
    compensated_action_type, compensation_type, target_ref, outcome, duration_ms, metadata, matrix_row,
    comp_key, jseq
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[],
    $9::text[], $10::text[], $11::bigint[], $12::text[], $13::text[], $14::text[], $15::bigint[]
);

-- name: write_message_quarantine
-- Messages set aside.
INSERT INTO message_quarantine (
    message_id, entity, type, body, error, at_us, jseq
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[]
);

-- name: write_audit_log
-- Audit entries, already chained.
INSERT INTO audit_log (
    audit_id, seq, at_us, actor, action, target_ref, from_state, to_state, reason, request_id, trace_id,
    recovery_trace_id, epoch, details, prev_hash, hash, jseq
)
SELECT
    audit_id, seq, at_us, actor, action, target_ref, from_state, to_state, reason, request_id, trace_id,
    recovery_trace_id, epoch, details::json, prev_hash, hash, jseq
FROM unnest(
    $1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::text[], $13::bigint[], $14::text[], $15::text[], $16::text[],
    $17::bigint[]
) AS row (
    audit_id, seq, at_us, actor, action, target_ref, from_state, to_state, reason, request_id, trace_id,
    recovery_trace_id, epoch, details, prev_hash, hash, jseq
);

-- name: write_step_end
-- Outcomes of tries. Not by `state`: the index of intended steps has every dead entry of a burst until a vacuum.
UPDATE step SET
    state = row.state, started_us = row.started_us, ended_us = row.ended_us, code = row.code,
    message = row.message, epoch = row.epoch, jseq = row.jseq
FROM unnest(
    $1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::bigint[]
) AS row (step_id, state, started_us, ended_us, code, message, epoch, jseq)
WHERE step.step_id = row.step_id AND step.ended_us IS NULL;

-- name: write_outbox_mark
-- What publishing came to: of several marks of one commit the last; published is final.
UPDATE outbox SET state = row.state, attempts = row.attempts, published_us = row.published_us
FROM (
    SELECT DISTINCT ON (outbox_id) *
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
        AS mark (outbox_id, state, attempts, published_us, jseq)
    ORDER BY outbox_id, jseq DESC
) AS row
WHERE outbox.outbox_id = row.outbox_id AND outbox.state NOT IN ('published', 'skipped');

-- name: write_recovery_run_end
-- Outcomes of runs; `degraded` leaves the end open.
UPDATE recovery_run SET
    final_outcome = row.final_outcome, ended_us = row.ended_us, net = row.net, jseq = row.jseq
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[])
    AS row (recovery_id, final_outcome, ended_us, net, jseq)
WHERE recovery_run.recovery_id = row.recovery_id AND recovery_run.ended_us IS NULL;

-- name: write_ops_case
-- Cases as they stand. What a later row leaves empty keeps what it was.
INSERT INTO ops_case AS known (
    case_id, kind, target_ref, entity, state, opened_us, resolved_us, recovery_trace_id, commands, evidence, jseq
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::text[], $9::text[],
    $10::text[], $11::bigint[]
)
ON CONFLICT (case_id) DO UPDATE SET
    state = excluded.state,
    resolved_us = excluded.resolved_us,
    recovery_trace_id = CASE excluded.recovery_trace_id WHEN '' THEN known.recovery_trace_id
                        ELSE excluded.recovery_trace_id END,
    evidence = CASE excluded.evidence WHEN '{}' THEN known.evidence ELSE excluded.evidence END,
    jseq = excluded.jseq;

-- name: consume
-- Durable messages taken in by this commit's turns.
DELETE FROM message WHERE message_id = ANY ($1::text[]);

-- name: advance_head
-- The compare-and-set every commit begins with: fence, total order, audit sequence and the digests of its rows in one.
WITH moved AS (
    UPDATE journal_head SET seq = $1, audit_seq = $2, hash = $3, at_us = greatest(at_us, $4), digest = $7
    WHERE epoch = $5 AND seq = $6 RETURNING epoch
)
INSERT INTO journal_digest (seq, epoch, audit_seq, audit_hash, prev_hash, hash, leaves)
SELECT $1, epoch, $2, $3, $8, $7, $9 FROM moved;

-- name: read_head
-- Where the journal stands.
SELECT epoch, seq, audit_seq, hash, digest, at_us FROM journal_head;

-- name: settled_head
-- The same once no session is in the middle of moving it; refused after the lock timeout.
SELECT epoch, seq, audit_seq, hash, digest, at_us FROM journal_head FOR UPDATE;
