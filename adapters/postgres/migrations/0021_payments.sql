-- expand: payments and what Stripe has said of them (R06); what each account has, kept with every entry and never
-- summed up over all of them.

CREATE TABLE payments (
    payment_id  text PRIMARY KEY,
    state       text NOT NULL,
    version     bigint NOT NULL,
    due_us      bigint,
    body        jsonb NOT NULL,
    live        boolean NOT NULL DEFAULT true,
    ended_state text,
    account_id  text
) WITH (fillfactor = 80);
CREATE INDEX payments_account ON payments (account_id, payment_id);
CREATE INDEX payments_state ON payments (state, payment_id);
CREATE INDEX payments_live ON payments (payment_id) WHERE live;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON payments EXECUTE FUNCTION amends_guard();
CREATE TRIGGER born BEFORE INSERT ON payments EXECUTE FUNCTION amends_guard();

-- One row for each event of Stripe's, for ever: what came of its first delivery, or of its payment later.
CREATE TABLE stripe_events (
    event_id    text PRIMARY KEY,
    type        text NOT NULL,
    payment_id  text NOT NULL,
    state       text NOT NULL CHECK (state IN ('applied', 'duplicate', 'deferred', 'ignored')),
    account_id  text,
    received_us bigint NOT NULL,
    jseq        bigint NOT NULL
);
CREATE INDEX stripe_events_payment ON stripe_events (payment_id);
CREATE INDEX stripe_events_state ON stripe_events (state, event_id);
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON stripe_events EXECUTE FUNCTION amends_guard();
CREATE TRIGGER born BEFORE INSERT ON stripe_events EXECUTE FUNCTION amends_guard();

-- Credits on their way to Stripe (`mirror_credits`): intended with their entry, and what came of it.
CREATE TABLE mirrored_credits (
    ledger_key   text PRIMARY KEY,
    account_id   text NOT NULL,
    customer     text NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency     text NOT NULL,
    state        text NOT NULL CHECK (state IN ('owed', 'done', 'failed', 'settled')),
    first_us     bigint NOT NULL,
    generation   bigint NOT NULL,
    transaction  text NOT NULL,
    jseq         bigint NOT NULL
);
CREATE INDEX mirrored_credits_customer ON mirrored_credits (customer);
CREATE INDEX meters_stopped ON meters (stopped_us) WHERE state = 'stopped';
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON mirrored_credits EXECUTE FUNCTION amends_guard();
CREATE TRIGGER born BEFORE INSERT ON mirrored_credits EXECUTE FUNCTION amends_guard();

-- The month that an instant lies in, as 202601, and the instant at which the next one begins.
CREATE FUNCTION amends_month_of(us bigint) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN extract(year FROM to_timestamp(us / 1000000) AT TIME ZONE 'UTC')::integer * 100
         + extract(month FROM to_timestamp(us / 1000000) AT TIME ZONE 'UTC')::integer;

-- What the entries of an account come to: of each month, and (month 0) of all of them.
CREATE TABLE ledger_balances (
    account_id    text NOT NULL,
    month         integer NOT NULL,
    balance_minor bigint NOT NULL,
    entries       bigint NOT NULL,
    PRIMARY KEY (account_id, month)
) WITH (fillfactor = 80);
INSERT INTO ledger_balances
SELECT account_id, month, sum(CASE WHEN entry_type IN ('topup', 'credit') THEN amount_minor ELSE -amount_minor END),
    count(*)
FROM ledger_entries CROSS JOIN LATERAL (VALUES (0), (amends_month_of(created_us))) AS parts (month)
GROUP BY account_id, month;
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);
CREATE FUNCTION amends_ledger_balance() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO ledger_balances AS known (account_id, month, balance_minor, entries)
    SELECT account_id, parts.month,
        sum(CASE WHEN entry_type IN ('topup', 'credit') THEN amount_minor ELSE -amount_minor END), count(*)
    FROM born CROSS JOIN LATERAL (VALUES (0), (amends_month_of(created_us))) AS parts (month)
    GROUP BY account_id, parts.month ORDER BY account_id, parts.month
    ON CONFLICT (account_id, month) DO UPDATE SET
        balance_minor = known.balance_minor + excluded.balance_minor, entries = known.entries + excluded.entries;
    RETURN NULL;
END $$;
CREATE TRIGGER balanced AFTER INSERT ON ledger_entries REFERENCING NEW TABLE AS born
    FOR EACH STATEMENT EXECUTE FUNCTION amends_ledger_balance();
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_balances EXECUTE FUNCTION amends_guard();
CREATE TRIGGER born BEFORE INSERT ON ledger_balances EXECUTE FUNCTION amends_guard();
