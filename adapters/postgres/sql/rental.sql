-- The rental domain's own rows.

-- name: write_assignments
-- The tie between an allocation and its node.
INSERT INTO assignments AS known (allocation_id, node_id, state, since_us, ended_us, jseq)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
ON CONFLICT (allocation_id) DO UPDATE SET
    state = excluded.state, ended_us = excluded.ended_us, jseq = excluded.jseq;

-- name: write_debts
-- Cleanups and unmounts a node owes; settled when `settled_us` is set.
INSERT INTO debts AS known (
    debt_id, node_id, kind, target_ref, allocation_id, attachment_id, attempts, since_us, settled_us, jseq
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[],
    $10::bigint[]
)
ON CONFLICT (debt_id) DO UPDATE SET
    attempts = excluded.attempts, settled_us = excluded.settled_us, jseq = excluded.jseq;

-- name: write_meters
-- Usage clocks. A stop may be lowered, never raised or taken back.
INSERT INTO meters AS known (
    meter_id, allocation_id, account_id, state, rate_uminor_per_hour, policy_version, policy_sha256, started_us,
    stopped_us, stop_cause, posted_through_us, jseq
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::bigint[], $9::bigint[],
    $10::text[], $11::bigint[], $12::bigint[]
)
ON CONFLICT (meter_id) DO UPDATE SET
    state = excluded.state, stopped_us = least(known.stopped_us, excluded.stopped_us),
    stop_cause = excluded.stop_cause, posted_through_us = excluded.posted_through_us, jseq = excluded.jseq;

-- name: live_assignments
-- Which node is whose.
SELECT allocation_id, node_id, state FROM assignments WHERE state <> 'ended';

-- name: live_debts
-- What nodes owe.
SELECT debt_id, node_id, allocation_id, target_ref FROM debts WHERE settled_us IS NULL;

-- name: write_node_seen
-- Last-seen times, only ever forward.
INSERT INTO node_seen AS known (node_id, boot_id, last_heartbeat_us, jseq)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
ON CONFLICT (node_id) DO UPDATE SET
    boot_id = excluded.boot_id, last_heartbeat_us = excluded.last_heartbeat_us, jseq = excluded.jseq
WHERE known.last_heartbeat_us < excluded.last_heartbeat_us;

-- name: seen_nodes
-- Last-seen times as checkpointed.
SELECT node_seen.node_id, node_seen.boot_id, node_seen.last_heartbeat_us
FROM node_seen JOIN nodes USING (node_id)
WHERE node_seen.last_heartbeat_us >= (nodes.body ->> 'registered_us')::bigint;

-- name: statement_entries
-- An account's ledger entries of a time.
SELECT * FROM public_v1.ledger_entry WHERE account_id = $1 AND created_us >= $2 AND created_us < $3
ORDER BY created_us, entry_id LIMIT 10000;

-- name: balance
-- What an account has: top-ups and credits less debits and refunds.
SELECT coalesce(sum(CASE WHEN entry_type IN ('topup', 'credit') THEN amount_minor ELSE -amount_minor END), 0)::bigint
       AS balance_minor
FROM public_v1.ledger_entry WHERE account_id = $1;
