-- What is asked of the rental domain alone.

-- name: statement_entries
-- An account's ledger entries after a place in the order of time, and before an instant, a page at a time.
SELECT * FROM public_v1.ledger_entry
WHERE account_id = $1 AND (created_us, entry_id) > ($2::bigint, $3::text) AND created_us < $4
ORDER BY created_us, entry_id LIMIT $5;

-- name: balance_at
-- What an account had at that place: all up to and with it. What has come since is taken off what it has now, by whole
-- months and the rest of the place's own.
SELECT (
    coalesce((SELECT balance_minor FROM ledger_balances WHERE account_id = $1 AND month = 0), 0)
    - coalesce((
        SELECT sum(balance_minor) FROM ledger_balances WHERE account_id = $1 AND month > amends_month_of($2::bigint)
    ), 0)
    - coalesce((
        SELECT sum(CASE WHEN entry_type IN ('topup', 'credit') THEN amount_minor ELSE -amount_minor END)
        FROM ledger_entries
        WHERE account_id = $1 AND (created_us, entry_id) > ($2::bigint, $3::text)
          AND created_us < 1000000 * extract(epoch FROM
              date_trunc('month', to_timestamp($2::bigint / 1000000) AT TIME ZONE 'UTC') + interval '1 month')::bigint
    ), 0)
)::bigint AS balance_minor;

-- name: evaluations
-- What was evaluated of a meter's end, in the order in which it was.
SELECT audit_id, at_us, trace_id, recovery_trace_id, details FROM public_v1.audit_log
WHERE target_ref = $1 AND action = 'billing.credit.evaluated' ORDER BY seq;

-- name: balance
-- What an account has: top-ups and credits less debits and refunds.
SELECT balance_minor FROM ledger_balances WHERE account_id = $1 AND month = 0;

-- name: balances
-- What each account has that ever had an entry.
SELECT account_id, balance_minor FROM ledger_balances WHERE month = 0;

-- name: given_up
-- Credits of an account that never came to Stripe, the first of them, as they were to be sent.
SELECT customer, amount_minor, currency, ledger_key, first_us, generation
FROM mirrored_credits WHERE account_id = $1 AND state = 'failed' ORDER BY ledger_key LIMIT 200;
