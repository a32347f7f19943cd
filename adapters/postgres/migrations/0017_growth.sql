-- contract: ready for years (tables.md, growth). Open steps, events and runs lie apart from ended ones, which are
-- written once, whole. What is unique over all time lies in narrow tables. No index is over an expression of a body, nor
-- over what changes while an actor lives, so that the write of a state is a HOT update. Head, lease and journal have a
-- shard.

SELECT set_config('amends.epoch', epoch::text, true) FROM journal_head;

-- The month in which a row is closed, as a number like 202611; 0 is that of open rows.
CREATE FUNCTION amends_month() RETURNS integer LANGUAGE sql STABLE PARALLEL SAFE
    RETURN extract(year FROM now() AT TIME ZONE 'UTC')::integer * 100
         + extract(month FROM now() AT TIME ZONE 'UTC')::integer;

-- Several heads may stand side by side one day; whoever holds one of them is let through.
CREATE OR REPLACE FUNCTION amends_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF session_user <> (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = TG_RELID)
       OR NOT EXISTS (SELECT FROM journal_head WHERE epoch::text = current_setting('amends.epoch', true)) THEN
        RAISE EXCEPTION '% on % is refused: state is changed through the API only', TG_OP, TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Use the amends command line or the ops subjects; see docs/runbooks.';
    END IF;
    RETURN NULL;
END $$;

ALTER TABLE journal_head DROP CONSTRAINT journal_head_id_check;
ALTER TABLE journal_head RENAME COLUMN id TO shard;
UPDATE journal_head SET shard = 0;
ALTER TABLE journal_digest ADD COLUMN shard integer NOT NULL DEFAULT 0;
ALTER TABLE journal_digest DROP CONSTRAINT journal_digest_pkey, ADD PRIMARY KEY (shard, seq);
ALTER TABLE audit_log ADD COLUMN shard integer NOT NULL DEFAULT 0;
ALTER TABLE audit_log DROP CONSTRAINT audit_log_seq_key, ADD CONSTRAINT audit_log_seq_key UNIQUE (shard, seq);

-- The end of a run moves its row; the place of its beginning stays.
CREATE OR REPLACE FUNCTION amends_run_phase() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.begun_jseq = 0 THEN
        NEW.begun_jseq := NEW.jseq;
    END IF;
    IF NEW.ended_us IS NOT NULL AND NEW.ended_epoch IS NULL THEN
        NEW.ended_epoch := current_setting('amends.epoch')::bigint;
    END IF;
    RETURN NEW;
END $$;
DROP TRIGGER phase ON recovery_run;

-- No query needs these.
DROP INDEX failure_recovery, ops_case_recovery;

-- What was one table becomes the part for ended rows, as it is, and only open rows are moved.
DROP INDEX step_intended, outbox_waiting, outbox_parked, outbox_pending, recovery_run_open;
DO $$
DECLARE
    part   record;
    listed text;
    month  integer := amends_month();
BEGIN
    FOR part IN SELECT * FROM (VALUES
        ('step', 'ended_us IS NULL'), ('outbox', 'state IN (''pending'', ''parked'')'),
        ('recovery_run', 'ended_us IS NULL')
    ) AS parts (name, open) LOOP
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO listed FROM pg_attribute
        WHERE attrelid = part.name::regclass AND attnum > 0 AND NOT attisdropped;
        EXECUTE format('ALTER TABLE %I RENAME TO %I', part.name, part.name || '_closed');
        EXECUTE format('ALTER TABLE %I ADD COLUMN month integer NOT NULL DEFAULT %s', part.name || '_closed', month);
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (month)',
                       part.name, part.name || '_closed');
        EXECUTE format('ALTER TABLE %I ALTER COLUMN month SET DEFAULT 0', part.name);
        EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (0) TO (1)', part.name || '_open', part.name);
        EXECUTE format('INSERT INTO %I (%s, month) SELECT %s, 0 FROM %I WHERE %s',
                       part.name || '_open', listed, listed, part.name || '_closed', part.open);
        EXECUTE format('DELETE FROM %I WHERE %s', part.name || '_closed', part.open);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I DEFAULT', part.name, part.name || '_closed');
        EXECUTE format('CREATE TRIGGER born BEFORE INSERT ON %I EXECUTE FUNCTION amends_guard()', part.name);
        EXECUTE format('CREATE TRIGGER born BEFORE INSERT ON %I EXECUTE FUNCTION amends_guard()', part.name || '_open');
        EXECUTE format('CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON %I EXECUTE FUNCTION amends_guard()',
                       part.name);
        EXECUTE format('CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON %I EXECUTE FUNCTION amends_guard()',
                       part.name || '_open');
    END LOOP;
END $$;
-- Which is what a plan looks at that asks for the open or the ended ones by their own columns.
ALTER TABLE step_open ADD CHECK (ended_us IS NULL);
ALTER TABLE step_closed ADD CHECK (ended_us IS NOT NULL AND state <> 'intended');
ALTER TABLE outbox_open ADD CHECK (state IN ('pending', 'parked'));
ALTER TABLE outbox_closed ADD CHECK (state IN ('published', 'skipped'));
ALTER TABLE recovery_run_open ADD CHECK (ended_us IS NULL);
ALTER TABLE recovery_run_closed ADD CHECK (ended_us IS NOT NULL);
CREATE TRIGGER phase BEFORE INSERT OR UPDATE ON recovery_run FOR EACH ROW EXECUTE FUNCTION amends_run_phase();
ALTER TABLE step_open ADD PRIMARY KEY (step_id);
CREATE INDEX step_open_entity ON step_open (entity);
ALTER TABLE outbox_open ADD PRIMARY KEY (outbox_id);
CREATE INDEX outbox_open_waiting ON outbox_open (jseq, outbox_id) WHERE state = 'pending';
CREATE INDEX outbox_open_parked ON outbox_open (entity) WHERE state = 'parked';
CREATE INDEX outbox_open_entity ON outbox_open (entity);
ALTER TABLE recovery_run_open
    ADD PRIMARY KEY (recovery_id),
    ADD CONSTRAINT recovery_run_open_trace UNIQUE (recovery_trace_id);
CREATE INDEX recovery_run_open_entity ON recovery_run_open (entity);
CREATE INDEX recovery_run_open_started ON recovery_run_open (started_us);
CREATE INDEX recovery_run_open_jseq ON recovery_run_open (jseq);
CREATE INDEX recovery_run_open_begun ON recovery_run_open (begun_jseq);
CREATE INDEX recovery_run_open_original ON recovery_run_open (original_trace_id);
CREATE INDEX recovery_run_open_of_trace ON recovery_run_open (nullif(original_trace_id, ''), recovery_id);

-- Replies that are kept for 7 days, apart from the commands, which stay as they were written.
CREATE TABLE command_reply (
    caller      text   NOT NULL,
    key         text   NOT NULL,
    body_hash   text   NOT NULL,
    request_id  text   NOT NULL,
    trace_id    text   NOT NULL,
    span_id     text   NOT NULL,
    http        integer NOT NULL,
    reply       text   NOT NULL,
    received_us bigint NOT NULL,
    jseq        bigint NOT NULL
);
INSERT INTO command_reply
SELECT caller, key, body_hash, request_id, trace_id, span_id, http, reply, received_us, jseq
FROM command WHERE key IS NOT NULL;
ALTER TABLE command DROP CONSTRAINT command_key, DROP COLUMN key, DROP COLUMN body_hash, DROP COLUMN reply;
ALTER TABLE command_reply ADD CONSTRAINT command_key PRIMARY KEY (caller, key);
CREATE INDEX command_reply_received ON command_reply (received_us);
CREATE TRIGGER born BEFORE INSERT ON command_reply EXECUTE FUNCTION amends_guard();
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON command_reply EXECUTE FUNCTION amends_guard();

-- Keys that are unique over all time; written by the database itself, with the rows.
ALTER TABLE ledger_entries DROP CONSTRAINT ledger_entries_idempotency_key_key;
CREATE INDEX ledger_entries_key ON ledger_entries (idempotency_key);
CREATE TABLE ledger_key (idempotency_key text CONSTRAINT ledger_entries_idempotency_key_key PRIMARY KEY);
INSERT INTO ledger_key SELECT idempotency_key FROM ledger_entries;
ALTER TABLE compensation DROP CONSTRAINT compensation_comp_key_key;
CREATE INDEX compensation_key_of ON compensation (comp_key);
CREATE TABLE compensation_key (comp_key text CONSTRAINT compensation_comp_key_key PRIMARY KEY);
INSERT INTO compensation_key SELECT comp_key FROM compensation;
CREATE FUNCTION amends_ledger_key() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO ledger_key SELECT idempotency_key FROM born;
    RETURN NULL;
END $$;
CREATE FUNCTION amends_compensation_key() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO compensation_key SELECT comp_key FROM born;
    RETURN NULL;
END $$;
CREATE TRIGGER keyed AFTER INSERT ON ledger_entries REFERENCING NEW TABLE AS born
    FOR EACH STATEMENT EXECUTE FUNCTION amends_ledger_key();
CREATE TRIGGER keyed AFTER INSERT ON compensation REFERENCING NEW TABLE AS born
    FOR EACH STATEMENT EXECUTE FUNCTION amends_compensation_key();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_key EXECUTE FUNCTION amends_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON compensation_key
    EXECUTE FUNCTION amends_append_only();

-- What is found by: columns of their own, written with the body (`ActorKind.columns`).
DROP INDEX notifications_dedupe, notifications_live, notifications_account, notifications_account_kind,
    notifications_entity, notifications_other, nodes_live, nodes_state, node_host_key, accounts_customer,
    allocations_live, allocations_account, allocations_account_state, allocations_ended, allocations_node,
    allocations_external, allocations_failure, allocations_owing;
ALTER TABLE actors ADD COLUMN live boolean NOT NULL DEFAULT true, ADD COLUMN ended_state text;
ALTER TABLE accounts ADD COLUMN live boolean NOT NULL DEFAULT true, ADD COLUMN ended_state text,
    ADD COLUMN stripe_customer_id text;
ALTER TABLE nodes ADD COLUMN live boolean NOT NULL DEFAULT true, ADD COLUMN ended_state text,
    ADD COLUMN ssh_host_key text;
ALTER TABLE allocations ADD COLUMN live boolean NOT NULL DEFAULT true, ADD COLUMN ended_state text,
    ADD COLUMN account_id text, ADD COLUMN node_id text, ADD COLUMN external_ref text, ADD COLUMN failure_code text,
    ADD COLUMN cleanup_pending boolean NOT NULL DEFAULT false;
ALTER TABLE notifications ADD COLUMN live boolean NOT NULL DEFAULT true, ADD COLUMN ended_state text,
    ADD COLUMN account_id text, ADD COLUMN kind text, ADD COLUMN entity text, ADD COLUMN dedupe_key text;
UPDATE accounts SET stripe_customer_id = body ->> 'stripe_customer_id';
UPDATE nodes SET ssh_host_key = body ->> 'ssh_host_key', ended_state = CASE state WHEN 'retired' THEN state END,
    live = state <> 'retired' OR body ?| array['owing', 'timers', 'runs', 'cases'];
UPDATE allocations SET
    account_id = body ->> 'account_id', node_id = body ->> 'node_id', external_ref = body ->> 'external_ref',
    failure_code = body ->> 'failure_code',
    cleanup_pending = coalesce((body ->> 'cleanup_pending')::boolean, false),
    ended_state = CASE WHEN state IN ('released', 'failed') THEN state END,
    live = state NOT IN ('released', 'failed') OR body ?| array['owing', 'timers', 'runs', 'cases'];
UPDATE notifications SET
    account_id = body ->> 'account_id', kind = body ->> 'kind', entity = body ->> 'entity',
    dedupe_key = body ->> 'dedupe_key', ended_state = CASE WHEN state IN ('sent', 'cancelled') THEN state END,
    live = state NOT IN ('sent', 'cancelled') OR body ?| array['owing', 'timers', 'runs', 'cases'];
ALTER TABLE actors SET (fillfactor = 80);
ALTER TABLE accounts SET (fillfactor = 80);
ALTER TABLE nodes SET (fillfactor = 80);
ALTER TABLE allocations SET (fillfactor = 80);
ALTER TABLE notifications SET (fillfactor = 80);

CREATE INDEX actors_live ON actors (kind, id) WHERE live;
CREATE INDEX accounts_customer ON accounts (stripe_customer_id, account_id) WHERE stripe_customer_id IS NOT NULL;
CREATE INDEX nodes_live ON nodes (node_id) WHERE live;
CREATE UNIQUE INDEX node_host_key ON nodes (ssh_host_key) WHERE ended_state IS NULL;
CREATE INDEX allocations_live ON allocations (allocation_id) WHERE live;
CREATE INDEX allocations_account ON allocations (account_id, allocation_id);
CREATE INDEX allocations_account_live ON allocations (account_id, allocation_id) WHERE live;
CREATE INDEX allocations_account_ended ON allocations (account_id, ended_state, allocation_id)
    WHERE ended_state IS NOT NULL;
CREATE INDEX allocations_ended ON allocations (ended_state, allocation_id) WHERE ended_state IS NOT NULL;
CREATE INDEX allocations_node ON allocations (node_id, allocation_id) WHERE node_id IS NOT NULL;
CREATE INDEX allocations_external ON allocations (external_ref, allocation_id) WHERE external_ref IS NOT NULL;
CREATE INDEX allocations_failure ON allocations (failure_code, allocation_id) WHERE failure_code IS NOT NULL;
CREATE INDEX allocations_owing ON allocations (allocation_id) WHERE cleanup_pending;
CREATE UNIQUE INDEX notifications_dedupe ON notifications (dedupe_key);
CREATE INDEX notifications_live ON notifications (notification_id) WHERE live;
CREATE INDEX notifications_account ON notifications (account_id, notification_id);
CREATE INDEX notifications_account_kind ON notifications (account_id, kind, notification_id);
CREATE INDEX notifications_entity ON notifications (entity, notification_id);
CREATE INDEX notifications_other ON notifications (ended_state, notification_id) WHERE ended_state <> 'sent';

-- Which files of views were applied last.
CREATE TABLE schema_views (shard integer PRIMARY KEY, sha256 text NOT NULL);
