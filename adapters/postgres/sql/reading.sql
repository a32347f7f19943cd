-- What is read beside the journal: the views' columns, spans and their follower, the audit chain.

-- name: view_columns
-- The columns of the outsiders' views, as the catalog has them.
SELECT relation.relname AS view, attribute.attname AS name, format_type(attribute.atttypid, NULL) AS type
FROM pg_class AS relation
JOIN pg_namespace AS space ON space.oid = relation.relnamespace
JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
WHERE space.nspname = 'public_v1' AND relation.relkind = 'v' AND attribute.attnum > 0 AND NOT attribute.attisdropped
ORDER BY relation.relname, attribute.attnum;

-- name: policy_document
-- A policy that is or was in force, by its hash.
SELECT body FROM document WHERE sha256 = $1 AND kind = 'policy';

-- name: spans_between
-- Spans whose records were committed in ($1, $2], in that order; at most $3. Their resource is their epoch's.
SELECT
    trace_id, span_id, parent_span_id, name, kind, start_us, end_us, status, attributes, events, links, jseq, epoch,
    status_message
FROM public_v1.span WHERE jseq > $1 AND jseq <= $2 ORDER BY jseq, span_id LIMIT $3;

-- name: span_resources
-- What the spans of some epochs have as their resource.
SELECT epoch, resource FROM span_resource WHERE epoch = ANY ($1::bigint[]);

-- name: spans_of
-- All spans of some traces.
SELECT * FROM public_v1.span WHERE trace_id = ANY ($1::text[]) ORDER BY start_us, jseq, span_id;

-- name: span_places
-- Where the spans of some traces stand.
SELECT trace_id, span_id FROM public_v1.span WHERE trace_id = ANY ($1::text[]);

-- name: recent_traces
-- The newest $3 traces with a span committed in ($1, $2] that `found_traces` would find by the rest.
SELECT trace_id, max(jseq) AS jseq FROM public_v1.span
WHERE jseq > $1 AND jseq <= $2 AND start_us BETWEEN $4 AND $5
  AND ($6::text = '' OR resource ->> 'service.name' = $6) AND ($7::text IS NULL OR name = $7)
  AND ($8::bigint IS NULL OR end_us - start_us >= $8) AND ($9::bigint IS NULL OR end_us - start_us <= $9)
  AND ($10::text IS NULL OR lower(kind) = $10) AND ($11::text IS NULL OR status = $11)
  AND ($12::text IS NULL OR (status = 'ERROR')::text = $12) AND ($13::text IS NULL OR status_message = $13)
  AND ($14::text IS NULL
       OR jsonb_build_object('a', attributes, 'r', resource, 'e', events) @@ $14::text::jsonpath)
GROUP BY trace_id ORDER BY max(jseq) DESC LIMIT $3;

-- name: found_traces
-- Of the traces $1 the newest $2 that have a span begun in [$3, $4], of that service ($5, '' for any) and name ($6, null
-- for any), as long as $7 and $8 say (microseconds, null for any length), with that kind, status, error, status message
-- ($9 to $12, null for any) and the tags that the path $13 asks for (null for none).
SELECT trace_id, max(jseq) AS jseq FROM public_v1.span
WHERE trace_id = ANY ($1::text[]) AND start_us BETWEEN $3 AND $4
  AND ($5::text = '' OR resource ->> 'service.name' = $5) AND ($6::text IS NULL OR name = $6)
  AND ($7::bigint IS NULL OR end_us - start_us >= $7) AND ($8::bigint IS NULL OR end_us - start_us <= $8)
  AND ($9::text IS NULL OR lower(kind) = $9) AND ($10::text IS NULL OR status = $10)
  AND ($11::text IS NULL OR (status = 'ERROR')::text = $11) AND ($12::text IS NULL OR status_message = $12)
  AND ($13::text IS NULL
       OR jsonb_build_object('a', attributes, 'r', resource, 'e', events) @@ $13::text::jsonpath)
GROUP BY trace_id ORDER BY max(jseq) DESC LIMIT $2;

-- name: turn_at
-- The turn of the last audit entry that is not younger than $1, by halving: the log is in the order of time but for the
-- moments between a decision and its commit.
WITH RECURSIVE halving AS (
    SELECT coalesce((SELECT max(audit_seq) FROM archived), 0) AS low, audit_seq + 1 AS high
    FROM journal_head WHERE shard = 0
    UNION ALL
    SELECT
        CASE WHEN entry.at_us <= $1 THEN entry.seq ELSE low END, CASE WHEN entry.at_us <= $1 THEN high ELSE entry.seq END
    FROM halving
    CROSS JOIN LATERAL (SELECT seq, at_us FROM audit_log WHERE shard = 0 AND seq = (low + high) / 2) AS entry
    WHERE high - low > 1
)
SELECT coalesce((SELECT jseq FROM audit_log WHERE shard = 0 AND seq = (SELECT max(low) FROM halving)), 0) AS jseq;

-- name: span_services
-- The names under which runtimes record spans.
SELECT DISTINCT coalesce(resource ->> 'service.name', 'amends') AS name FROM runtime_epoch ORDER BY name;

-- name: span_operations
-- What spans committed after $1 are called, of one service.
SELECT DISTINCT name, lower(kind) AS kind FROM public_v1.span
WHERE jseq > $1 AND resource ->> 'service.name' = $2 ORDER BY name, kind;

-- name: read_cursor
-- How far a follower of the journal has come.
SELECT jseq FROM journal_cursor WHERE name = $1;

-- name: write_cursor
-- A follower has come so far; never back.
INSERT INTO journal_cursor AS known (name, jseq) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET jseq = greatest(known.jseq, excluded.jseq);

-- name: audit_chain
-- The audit log in the order of its chain, from $1 on.
SELECT
    audit_id, seq, at_us, actor, action, target_ref, from_state, to_state, reason, request_id, trace_id,
    recovery_trace_id, epoch, details::text AS details, prev_hash, hash
FROM audit_log WHERE shard = 0 AND seq >= $1 ORDER BY seq;

-- name: digest_chain
-- The digest chain in its order.
SELECT seq, epoch, audit_seq, audit_hash, prev_hash, hash, leaves FROM journal_digest WHERE shard = 0 ORDER BY seq;

-- name: audit_untied
-- Audit entries that are not of the commit in which the digest chain has them, each by its number.
SELECT entry.seq
FROM audit_log AS entry
CROSS JOIN (SELECT seq, audit_seq FROM journal_digest WHERE shard = 0 ORDER BY seq LIMIT 1) AS began
LEFT JOIN LATERAL (
    SELECT audit_seq, audit_hash FROM journal_digest WHERE shard = 0 AND seq >= entry.jseq ORDER BY seq LIMIT 1
) AS own ON true
LEFT JOIN LATERAL (
    SELECT audit_seq FROM journal_digest WHERE shard = 0 AND seq < entry.jseq ORDER BY seq DESC LIMIT 1
) AS before ON true
WHERE entry.seq > began.audit_seq AND (
    own.audit_seq IS NULL OR before.audit_seq IS NULL OR entry.seq > own.audit_seq OR entry.seq <= before.audit_seq
    OR (entry.seq = own.audit_seq AND entry.hash <> own.audit_hash)
)
ORDER BY entry.seq LIMIT 200;

-- name: has_months
-- Whether history lies in parts.
SELECT to_regclass('archived') IS NOT NULL;

-- name: archive_end
-- Both chains where the history that is here begins.
SELECT seq, digest, audit_seq, audit_hash FROM archived
UNION ALL SELECT 0, repeat('0', 64), 0, repeat('0', 64)
ORDER BY seq DESC LIMIT 1;

-- name: archive_manifest
-- The manifest of the newest archive, by its digest; null for none.
SELECT manifest_sha256 FROM archived ORDER BY seq DESC LIMIT 1;

-- name: months_before
-- The parts whose months lie before $1, and (without an end) those for everything else that hold rows of such.
SELECT whole, part, till, 0::bigint AS rows FROM monthly_part WHERE till <= $1
UNION ALL
SELECT name, name || '_else', NULL, counted.rows
FROM monthly CROSS JOIN LATERAL amends_rows_before(name || '_else', $1) AS counted (rows)
WHERE counted.rows > 0;

-- name: oldest_month_end
-- The month before which the oldest part was closed.
SELECT min(till) FROM monthly_part;

-- name: sent_spans
-- How far the exporter of spans has come.
SELECT jseq FROM journal_cursor WHERE name = 'otlp';

-- name: impatient
-- For a transaction that others wait for.
SET LOCAL lock_timeout = '500ms';

-- name: be_runtime
-- What this transaction writes is the runtime's.
SELECT set_config('amends.epoch', epoch::text, true) FROM journal_head WHERE shard = 0;

-- name: hold_head
-- Nobody commits until this transaction ends.
LOCK TABLE journal_head IN EXCLUSIVE MODE;

-- name: record_archive
-- History begins after this turn.
INSERT INTO archived (seq, digest, audit_seq, audit_hash, before_month, manifest_sha256, at_us)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: keep_evaluations
-- What the audit entries up to $1 say of money.
INSERT INTO kept_evaluation (target_ref, seq, audit_id, at_us, trace_id, recovery_trace_id, details)
SELECT target_ref, seq, audit_id, at_us, nullif(trace_id, ''), nullif(recovery_trace_id, ''), details
FROM audit_log WHERE action = 'billing.credit.evaluated' AND shard = 0 AND seq <= $1;

-- name: mark_archived
-- What is archived was verified.
UPDATE verified_mark SET
    jseq = archived.seq, audit_seq = archived.audit_seq, audit_hash = archived.audit_hash, at_us = archived.at_us
FROM (SELECT * FROM archived ORDER BY seq DESC LIMIT 1) AS archived
WHERE verified_mark.shard = 0 AND verified_mark.jseq < archived.seq;

-- name: unhurried
-- For a transaction that works between its reads.
SET LOCAL idle_in_transaction_session_timeout = '10min';

-- name: traces_after
-- The next $2 traces after $1 that any record belongs to, by their ids.
SELECT trace_id FROM (
    (SELECT DISTINCT trace_id FROM command WHERE trace_id > $1 ORDER BY trace_id LIMIT $2)
    UNION
    (SELECT DISTINCT trace_id FROM step WHERE trace_id > $1 ORDER BY trace_id LIMIT $2)
    UNION
    (SELECT md5('step/' || step_id) AS trace_id FROM step
     WHERE trace_id = '' AND md5('step/' || step_id) > $1 ORDER BY md5('step/' || step_id) LIMIT $2)
    UNION
    (SELECT DISTINCT trace_id FROM failure WHERE trace_id > $1 ORDER BY trace_id LIMIT $2)
    UNION
    (SELECT md5('failure/' || failure_id) AS trace_id FROM failure
     WHERE trace_id = '' AND md5('failure/' || failure_id) > $1 ORDER BY md5('failure/' || failure_id) LIMIT $2)
    UNION
    (SELECT DISTINCT recovery_trace_id FROM recovery_run WHERE recovery_trace_id > $1
     ORDER BY recovery_trace_id LIMIT $2)
    UNION
    (SELECT DISTINCT original_trace_id FROM recovery_run WHERE original_trace_id > $1
     ORDER BY original_trace_id LIMIT $2)
    UNION
    (SELECT DISTINCT recovery_trace_id FROM recovery_action WHERE recovery_trace_id > $1
     ORDER BY recovery_trace_id LIMIT $2)
    UNION
    (SELECT DISTINCT recovery_trace_id FROM compensation WHERE recovery_trace_id > $1
     ORDER BY recovery_trace_id LIMIT $2)
) AS known ORDER BY trace_id LIMIT $2;

-- name: compensations_of
-- The compensations of some traces as outsiders see them.
SELECT * FROM public_v1.compensation WHERE recovery_trace_id = ANY ($1::text[]) ORDER BY recovery_trace_id, sequence;

-- name: ended_steps_of
-- How the tries of some traces ended.
SELECT step_id, state FROM step WHERE month >= 1 AND trace_id = ANY ($1::text[])
UNION ALL
SELECT step_id, state FROM step
WHERE month >= 1 AND trace_id = '' AND md5('step/' || step_id) = ANY ($1::text[]);

-- name: all_compensations
-- Every compensation as outsiders see it.
SELECT * FROM public_v1.compensation ORDER BY recovery_trace_id, sequence;

-- name: ended_steps
-- How every try ended: what the status of its span is held to.
SELECT step_id, state FROM step WHERE month >= 1;

-- name: count_states
-- How many nodes and allocations are in each state; of those that have ended none are counted.
SELECT 'node' AS kind, state, count(*) AS count FROM nodes WHERE live AND ended_state IS NULL GROUP BY state
UNION ALL SELECT 'allocation', state, count(*) FROM allocations WHERE live AND ended_state IS NULL GROUP BY state;

-- name: open_case_kinds
-- Every case that waits for a person.
SELECT case_id, kind FROM ops_case WHERE state <> 'resolved';

-- name: open_debts
-- What nodes owe, and since when.
SELECT debt_id, since_us FROM debts WHERE settled_us IS NULL;

-- name: begun_runs
-- Recovery runs that have not ended.
SELECT recovery_id, matrix_row, recovery_trace_id, started_us FROM recovery_run WHERE ended_us IS NULL;

-- name: violations
-- What must not be; empty unless something is wrong.
SELECT name, target_ref, details FROM public_v1.invariant_violation;

-- name: fleet
-- Every living node, for a picture of all: its state, its site, what it owes, whose it is.
SELECT
    nodes.node_id, nodes.state, coalesce(nodes.body -> 'labels' ->> 'site', '') AS site,
    EXISTS (SELECT FROM debts WHERE debts.node_id = nodes.node_id AND settled_us IS NULL) AS dirty,
    assignments.allocation_id AS held
FROM nodes LEFT JOIN assignments ON assignments.node_id = nodes.node_id AND assignments.state <> 'ended'
WHERE nodes.state <> 'retired' ORDER BY site, nodes.node_id;
