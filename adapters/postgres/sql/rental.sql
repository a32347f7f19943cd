-- What is asked of the rental domain alone.

-- name: statement_entries
-- An account's ledger entries of a time.
SELECT * FROM public_v1.ledger_entry WHERE account_id = $1 AND created_us >= $2 AND created_us < $3
ORDER BY created_us, entry_id LIMIT 10000;

-- name: balance
-- What an account has: top-ups and credits less debits and refunds.
SELECT coalesce(sum(CASE WHEN entry_type IN ('topup', 'credit') THEN amount_minor ELSE -amount_minor END), 0)::bigint
       AS balance_minor
FROM public_v1.ledger_entry WHERE account_id = $1;
