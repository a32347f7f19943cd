-- What is read beside the journal: the views' columns, spans and their follower, the audit chain.

-- name: view_columns
-- The columns of the outsiders' views, as the catalog has them.
SELECT relation.relname AS view, attribute.attname AS name, format_type(attribute.atttypid, NULL) AS type
FROM pg_class AS relation
JOIN pg_namespace AS space ON space.oid = relation.relnamespace
JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
WHERE space.nspname = 'public_v1' AND relation.relkind = 'v' AND attribute.attnum > 0 AND NOT attribute.attisdropped
ORDER BY relation.relname, attribute.attnum;

-- name: spans_between
-- Spans whose records were committed in ($1, $2], in that order; at most $3.
SELECT * FROM public_v1.span WHERE jseq > $1 AND jseq <= $2 ORDER BY jseq, span_id LIMIT $3;

-- name: spans_of
-- All spans of some traces.
SELECT * FROM public_v1.span WHERE trace_id = ANY ($1::text[]) ORDER BY start_us, jseq, span_id;

-- name: recent_traces
-- The newest $5 traces with a span committed after $1, begun in [$2, $3], and of that name if $4 is not null; $6 must
-- stand among the attributes.
SELECT trace_id, max(jseq) AS jseq FROM public_v1.span
WHERE jseq > $1 AND start_us BETWEEN $2 AND $3 AND ($4::text IS NULL OR name = $4) AND attributes @> $6::jsonb
GROUP BY trace_id ORDER BY max(jseq) DESC LIMIT $5;

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
FROM audit_log WHERE seq >= $1 ORDER BY seq;

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
SELECT step_id, state FROM step WHERE state <> 'intended' AND trace_id = ANY ($1::text[])
UNION ALL
SELECT step_id, state FROM step
WHERE state <> 'intended' AND trace_id = '' AND md5('step/' || step_id) = ANY ($1::text[]);

-- name: all_compensations
-- Every compensation as outsiders see it.
SELECT * FROM public_v1.compensation ORDER BY recovery_trace_id, sequence;

-- name: ended_steps
-- How every try ended: what the status of its span is held to.
SELECT step_id, state FROM step WHERE state <> 'intended';

-- name: violations
-- What must not be; empty unless something is wrong.
SELECT name, target_ref, details FROM public_v1.invariant_violation;
