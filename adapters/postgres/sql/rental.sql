-- What is asked of the rental domain alone.

-- name: statement_entries
-- An account's ledger entries after a place in the order of time, and before an instant, a page at a time.
SELECT * FROM public_v1.ledger_entry
WHERE account_id = $1 AND (created_us, entry_id) > ($2::bigint, $3::text) AND created_us < $4
ORDER BY created_us, entry_id LIMIT $5;

-- name: balance_at
-- What an account had at that place: all up to and with it.
SELECT coalesce(sum(CASE WHEN entry_type IN ('topup', 'credit') THEN amount_minor ELSE -amount_minor END), 0)::bigint
       AS balance_minor
FROM public_v1.ledger_entry WHERE account_id = $1 AND (created_us, entry_id) <= ($2::bigint, $3::text);

-- name: evaluations
-- What was evaluated of a meter's end, in the order in which it was.
SELECT audit_id, at_us, trace_id, recovery_trace_id, details FROM public_v1.audit_log
WHERE target_ref = $1 AND action = 'billing.credit.evaluated' ORDER BY seq;

-- name: balance
-- What an account has: top-ups and credits less debits and refunds.
SELECT coalesce(sum(CASE WHEN entry_type IN ('topup', 'credit') THEN amount_minor ELSE -amount_minor END), 0)::bigint
       AS balance_minor
FROM public_v1.ledger_entry WHERE account_id = $1;
