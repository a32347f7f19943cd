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

-- name: all_compensations
-- Every compensation as outsiders see it.
SELECT * FROM public_v1.compensation ORDER BY recovery_trace_id, sequence;

-- name: ended_steps
-- How every try ended: what the status of its span is held to.
SELECT step_id, state FROM step WHERE state <> 'intended';

-- name: violations
-- What must not be; empty unless something is wrong.
SELECT name, target_ref, details FROM public_v1.invariant_violation;
