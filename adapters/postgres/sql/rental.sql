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

-- name: proof_meters
-- Meters after a place in the order of their ids, of one account or ('') of all, with how many windows they have about.
SELECT meter_id, account_id, state, rate_uminor_per_hour, policy_sha256, started_us, stopped_us, stop_cause,
    posted_through_us, unit_us, CASE WHEN window_us > 0 THEN (posted_through_us - started_us) / window_us + 2 ELSE 0 END AS windows
FROM meters WHERE meter_id > $1 AND ($2 = '' OR account_id = $2) ORDER BY meter_id LIMIT $3;

-- name: ended_meters
-- Meters that stopped since an instant, after a place in the order of their ids.
SELECT meter_id, account_id, rate_uminor_per_hour, policy_sha256, started_us, stopped_us, stop_cause
FROM meters WHERE state = 'stopped' AND stopped_us >= $1 AND unit_us > 0 AND meter_id > $2 ORDER BY meter_id LIMIT $3;

-- name: entries_of_meters
-- All entries of these meters.
SELECT meter_id, idempotency_key, entry_type, amount_minor FROM ledger_entries WHERE meter_id = ANY ($1::text[]);

-- name: evaluations_of_meters
-- What was evaluated of these meters' ends, in order.
SELECT target_ref, at_us, details FROM public_v1.audit_log
WHERE target_ref = ANY ($1::text[]) AND action = 'billing.credit.evaluated' ORDER BY seq;

-- name: proof_accounts
-- Accounts after a place, or one, with the balance that is kept and what their entries come to.
SELECT account.account_id, kept.balance_minor, kept.entries, account.stripe_customer_id, sums.*
FROM accounts AS account
LEFT JOIN ledger_balances AS kept ON kept.account_id = account.account_id AND kept.month = 0
CROSS JOIN LATERAL (
    SELECT coalesce(sum(CASE WHEN entry_type IN ('topup', 'credit') THEN amount_minor ELSE -amount_minor END), 0)::bigint
               AS found_minor, count(*) AS found_entries
    FROM ledger_entries WHERE ledger_entries.account_id = account.account_id
) AS sums
WHERE account.account_id > $1 AND ($2 = '' OR account.account_id = $2) ORDER BY account.account_id LIMIT $3;

-- name: credits_of_accounts
-- What of these accounts is to be at Stripe, by the ledger and by what is known of its mirror.
SELECT entry.account_id, entry.idempotency_key AS ledger_key, entry.amount_minor, entry.currency, mirror.customer,
    mirror.state, mirror.transaction
FROM ledger_entries AS entry LEFT JOIN mirrored_credits AS mirror ON mirror.ledger_key = entry.idempotency_key
WHERE entry.account_id = ANY ($1::text[]) AND entry.entry_type = 'credit' AND entry.meter_id IS NOT NULL;

-- name: proof_payments
-- Payments that were credited, after a place in the order of their ids, with the entries that stand for them.
SELECT payment.payment_id, payment.body ->> 'account_id' AS account_id,
    coalesce((payment.body ->> 'amount_minor')::bigint, 0) AS amount_minor,
    coalesce(payment.body -> 'booked', '[]') AS booked, found.keys
FROM payments AS payment
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_object_agg(idempotency_key, amount_minor), '{}') AS keys FROM ledger_entries
    WHERE idempotency_key IN (SELECT jsonb_array_elements_text(coalesce(payment.body -> 'booked', '[]')))
) AS found
WHERE payment.ended_state = 'credited' AND payment.payment_id > $1
  AND ($2 = '' OR payment.body ->> 'account_id' = $2) ORDER BY payment.payment_id LIMIT $3;
