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
SELECT audit_id, at_us, trace_id, recovery_trace_id, details FROM evaluation WHERE target_ref = $1 ORDER BY seq;

-- name: balance
-- What an account has: top-ups and credits less debits and refunds.
SELECT balance_minor FROM ledger_balances WHERE account_id = $1 AND month = 0;

-- name: balances
-- What each account has that ever had an entry.
SELECT account_id, balance_minor FROM ledger_balances WHERE month = 0;

-- name: payment_of_entry
-- The payment of an account that has booked the entry of that key, and the events that speak of it.
SELECT payment.*, coalesce((
    SELECT jsonb_agg(jsonb_build_object(
        'event_id', event.event_id, 'type', event.type, 'state', event.state, 'received_us', event.received_us
    ) ORDER BY event.received_us, event.event_id)
    FROM stripe_events AS event WHERE event.payment_id = payment.payment_id
), '[]') AS events
FROM public_v1.payment AS payment WHERE payment.account_id = $1 AND payment.booked ? $2;

-- name: given_up
-- Credits of an account that never came to Stripe, the first of them: given up, or (without a state) never sent though
-- they were posted before an instant: one that is younger may be on its way to who sends it.
SELECT entry.idempotency_key AS ledger_key, coalesce(mirror.amount_minor, entry.amount_minor) AS amount_minor,
    entry.currency, mirror.customer, mirror.state, mirror.first_us, mirror.generation
FROM ledger_entries AS entry LEFT JOIN mirrored_credits AS mirror ON mirror.ledger_key = entry.idempotency_key
WHERE entry.account_id = $1 AND entry.entry_type = 'credit' AND entry.meter_id IS NOT NULL AND entry.amount_minor > 0
  AND (mirror.state = 'failed' OR (mirror.state IS NULL AND entry.created_us < $2))
ORDER BY mirror.state NULLS LAST, entry.idempotency_key LIMIT 800;

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
SELECT meter_id, account_id, idempotency_key, entry_type, amount_minor, currency
FROM ledger_entries WHERE meter_id = ANY ($1::text[]);

-- name: sums_of_meters
-- What these meters have taken and given back.
SELECT meter_id, coalesce(sum(amount_minor) FILTER (WHERE entry_type = 'debit'), 0)::bigint AS charged,
    coalesce(sum(amount_minor) FILTER (WHERE entry_type = 'credit'), 0)::bigint AS credited
FROM ledger_entries WHERE meter_id = ANY ($1::text[]) GROUP BY meter_id;

-- name: evaluations_of_meters
-- What was evaluated of these meters' ends, in order.
SELECT target_ref, at_us, details FROM evaluation WHERE target_ref = ANY ($1::text[]) ORDER BY seq;

-- name: proof_payments
-- Payments that were credited, after a place in the order of their ids, with the entries that stand for them.
SELECT payment.payment_id, payment.account_id, payment.body ->> 'currency' AS currency,
    coalesce((payment.body ->> 'amount_minor')::bigint, 0) AS amount_minor,
    coalesce(payment.body -> 'booked', '{}') AS booked, found.entries
FROM payments AS payment
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_object_agg(idempotency_key, jsonb_build_array(
        amount_minor, account_id, currency, entry_type)), '{}') AS entries
    FROM ledger_entries
    WHERE idempotency_key IN (SELECT jsonb_object_keys(coalesce(payment.body -> 'booked', '{}')))
) AS found
WHERE payment.ended_state = 'credited' AND payment.payment_id > $1
  AND ($2 = '' OR payment.account_id = $2) ORDER BY payment.payment_id LIMIT $3;

-- name: waiting_in_vain
-- Payments that wait for an account which is there (of their currency, once refused), since before an instant.
SELECT DISTINCT payment.payment_id, account.account_id
FROM payments AS payment CROSS JOIN LATERAL jsonb_array_elements(coalesce(payment.body -> 'waiting', '[]')) AS said
JOIN accounts AS account ON account.account_id = said ->> 'account_id'
WHERE (payment.state = 'noted' OR (payment.state = 'refused' AND said ->> 'currency' = account.body ->> 'currency'))
  AND said ->> 'what' = 'paid' AND account.account_id = ANY ($1::text[])
  AND (account.body ->> 'created_us')::bigint < $2 AND (payment.body ->> 'since_us')::bigint < $2;

-- name: account_page
-- Accounts after a place, or one, with the balance that is kept and how many entries it is of.
SELECT account.account_id, account.stripe_customer_id, coalesce(kept.balance_minor, 0) AS balance_minor,
    coalesce(kept.entries, 0) AS entries
FROM accounts AS account
LEFT JOIN ledger_balances AS kept ON kept.account_id = account.account_id AND kept.month = 0
WHERE account.account_id > $1 AND ($2 = '' OR account.account_id = $2) ORDER BY account.account_id LIMIT $3;

-- name: sums_of_accounts
-- What the entries of these accounts come to; those without a meter apart, which payments must have booked; and those
-- whose meter is another account's, or none that there is.
SELECT entry.account_id, count(*) AS entries,
    sum(CASE WHEN entry_type IN ('topup', 'credit') THEN amount_minor ELSE -amount_minor END)::bigint AS balance_minor,
    count(*) FILTER (WHERE entry.meter_id IS NULL) AS paid_entries,
    coalesce(sum(CASE WHEN entry_type IN ('topup', 'credit') THEN amount_minor ELSE -amount_minor END)
        FILTER (WHERE entry.meter_id IS NULL), 0)::bigint AS paid_minor,
    count(*) FILTER (WHERE entry.meter_id IS NOT NULL AND meter.account_id IS DISTINCT FROM entry.account_id) AS strays
FROM ledger_entries AS entry LEFT JOIN meters AS meter ON meter.meter_id = entry.meter_id
WHERE entry.account_id = ANY ($1::text[]) GROUP BY entry.account_id;

-- name: booked_of_accounts
-- What payments of these accounts have booked.
SELECT payment.account_id, count(*) AS entries,
    sum(CASE WHEN booked.key LIKE 'refund:%' THEN -booked.value::bigint ELSE booked.value::bigint END)::bigint AS minor
FROM payments AS payment CROSS JOIN LATERAL jsonb_each_text(coalesce(payment.body -> 'booked', '{}')) AS booked
WHERE payment.account_id = ANY ($1::text[]) GROUP BY payment.account_id;

-- name: credits_of_customers
-- What is to be at Stripe for these customers, whoever has them, by what is known of the mirror.
SELECT mirror.account_id, mirror.ledger_key, mirror.amount_minor, mirror.currency, mirror.customer, mirror.state,
    mirror.first_us, entry.amount_minor AS ledger_minor
FROM mirrored_credits AS mirror LEFT JOIN ledger_entries AS entry ON entry.idempotency_key = mirror.ledger_key
WHERE mirror.customer = ANY ($1::text[]);

-- name: never_sent
-- Credits of these accounts that were never sent to Stripe though they were posted before an instant, and though they
-- have a customer there.
SELECT entry.account_id, entry.idempotency_key AS ledger_key, entry.amount_minor
FROM ledger_entries AS entry
WHERE entry.account_id = ANY ($1::text[]) AND entry.entry_type = 'credit' AND entry.meter_id IS NOT NULL
  AND entry.amount_minor > 0 AND entry.created_us < $2
  AND NOT EXISTS (SELECT FROM mirrored_credits WHERE mirrored_credits.ledger_key = entry.idempotency_key);
