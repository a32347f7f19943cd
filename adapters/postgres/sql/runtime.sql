-- What a runtime reads when it starts, and its lease.

-- name: waiting_outbox
-- The next events to publish, up to a place in the journal, in the order they were committed. What stands behind a
-- parked one waits for it, and so does what is of one of the entities $4.
SELECT outbox_id, entity, stream, subject, payload, trace_id, span_id, created_us, state, attempts
FROM outbox_open AS waiting
WHERE state = 'pending' AND stream = $1 AND jseq <= $2 AND entity <> ALL ($4::text[]) AND NOT EXISTS (
    SELECT FROM outbox_open AS parked WHERE parked.state = 'parked' AND parked.entity = waiting.entity
)
ORDER BY jseq, outbox_id LIMIT $3;

-- name: parked_outbox
-- Events the broker refuses, which wait for a person.
SELECT outbox_id, entity FROM outbox_open WHERE state = 'parked' AND stream = $1;

-- name: count_waiting_outbox
-- How many events are not yet acknowledged.
SELECT count(*) AS waiting FROM outbox_open WHERE state = 'pending' AND stream = $1;

-- name: count_waiting_entity
-- How many events of one entity are not yet acknowledged.
SELECT count(*) AS waiting FROM outbox_open WHERE state = 'pending' AND stream = $1 AND entity = $2;

-- name: read_events
-- Events by their ids, of one stream or of any.
SELECT outbox_id, entity, stream, subject, payload, trace_id, span_id, created_us, state, attempts
FROM outbox WHERE outbox_id = ANY($2::text[]) AND $1 IN (stream, '');

-- name: kept_replies
-- What was answered to these keys before; one look-up in the index for each of them.
SELECT asked.caller, asked.key, kept.body_hash, kept.request_id, kept.trace_id, kept.http, kept.reply
FROM unnest($1::text[], $2::text[]) AS asked (caller, key)
CROSS JOIN LATERAL (
    SELECT body_hash, request_id, trace_id, http, reply FROM command_reply
    WHERE command_reply.caller = asked.caller AND command_reply.key = asked.key LIMIT 1
) AS kept;

-- name: forget_replies
-- Replies are kept 7 days; a few at a time. With a refusal's goes its command: it changed nothing, and nothing points at
-- its span. What other spans are derived from stays.
WITH gone AS (
    DELETE FROM command_reply WHERE (caller, key) IN (
        SELECT caller, key FROM command_reply WHERE received_us < $1 ORDER BY received_us LIMIT 1000
    )
    RETURNING trace_id, span_id
), refused AS (
    DELETE FROM command USING gone
    WHERE command.trace_id = gone.trace_id AND command.span_id = gone.span_id AND command.error_code <> ''
      AND NOT EXISTS (SELECT FROM failure WHERE failure.span_id = gone.span_id)
)
SELECT 1 FROM gone;

-- name: store_document
-- A matrix or policy, whole, under its hash.
INSERT INTO document (sha256, kind, body, stored_us) VALUES ($1, $2, $3::text::jsonb, $4) ON CONFLICT DO NOTHING;

-- name: read_documents
-- All documents of a kind.
SELECT sha256, body::text AS body FROM document WHERE kind = $1;

-- name: begin_epoch
-- A runtime takes over the journal: from here on, commits of an older epoch fail.
-- The shard has no column before the migration that gives it one.
UPDATE journal_head SET epoch = $1 WHERE epoch < $1 AND coalesce((to_jsonb(journal_head) ->> 'shard')::integer, 0) = 0;

-- name: record_epoch
-- Which runtime an epoch was, and what its environment said of it.
INSERT INTO runtime_epoch (epoch, instance_id, version, started_us, resource) VALUES ($1, $2, $3, $4, $5::text::jsonb)
ON CONFLICT DO NOTHING;

-- name: durable_settings
-- The settings without which an acknowledged commit could be lost.
SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes');

-- name: create_lease
-- The lease's own table, as the first release made it; the only one that exists before the lease is held. A migration
-- gives it its shard: until then the row of an installation is found without.
CREATE TABLE IF NOT EXISTS lease (
    id            integer PRIMARY KEY CHECK (id = 1),
    epoch         bigint NOT NULL,
    holder        text NOT NULL,
    backend_pid   integer NOT NULL,
    backend_start timestamptz,
    renewed_at    timestamptz NOT NULL
);

-- name: seed_lease
-- Nobody holds it yet.
INSERT INTO lease SELECT CASE WHEN EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = 'lease'::regclass AND attname = 'id' AND NOT attisdropped
) THEN 1 ELSE 0 END, 0, '', 0, NULL, '-infinity' WHERE NOT EXISTS (SELECT FROM lease);

-- name: see_lease
-- The lease as it stands; nobody renews it before this transaction ends.
SELECT epoch, holder, renewed_at FROM lease WHERE coalesce((to_jsonb(lease) ->> 'shard')::integer, 0) = 0 FOR UPDATE;

-- name: take_lease
-- Take the lease as it was seen.
UPDATE lease SET
    epoch = lease.epoch + 1, holder = $1, backend_pid = pg_backend_pid(),
    backend_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()),
    renewed_at = clock_timestamp()
WHERE coalesce((to_jsonb(lease) ->> 'shard')::integer, 0) = 0 RETURNING epoch;

-- name: give_lease
-- Its holder has stopped: the next one need not wait.
UPDATE lease SET holder = '' WHERE coalesce((to_jsonb(lease) ->> 'shard')::integer, 0) = 0 AND epoch = $1;

-- name: read_lease
-- Whose it is, said by a server that is nobody's replica.
SELECT epoch FROM lease WHERE coalesce((to_jsonb(lease) ->> 'shard')::integer, 0) = 0 AND NOT pg_is_in_recovery();

-- name: set_epoch
-- This session is the runtime's.
SELECT set_config('amends.epoch', $1, false);

-- name: has_journal
-- Whether the schema was ever made.
SELECT to_regclass('journal_head') IS NOT NULL;

-- name: renew_lease
-- Still here.
UPDATE lease SET
    renewed_at = clock_timestamp(), backend_pid = pg_backend_pid(),
    backend_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())
WHERE coalesce((to_jsonb(lease) ->> 'shard')::integer, 0) = 0 AND epoch = $1 RETURNING epoch;

-- name: end_sessions
-- End what is left of older runtimes' sessions.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
  AND application_name LIKE 'amends:%' AND application_name <> $1;

-- name: waits_for_us
-- Whether a session of ours waits for its client, idle or in the midst; no row where there is none, as behind a pooler.
SELECT wait_event = 'ClientRead' FROM pg_stat_activity WHERE pid = $1 AND application_name LIKE 'amends%';

-- name: server_clock
-- What time it is on the server, in microseconds.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS at_us;

-- name: closed_tables
-- Tables of ours on which another session has, or waits for, a lock that lets nobody write them: who comes after one
-- that waits waits as well.
SELECT DISTINCT CASE coalesce(whole.relname, class.relname)
    WHEN 'ledger_key' THEN 'ledger_entries' WHEN 'compensation_key' THEN 'compensation'  -- written with these
    ELSE coalesce(whole.relname, class.relname) END AS name
FROM pg_locks AS held JOIN pg_class AS class ON class.oid = held.relation
LEFT JOIN pg_class AS whole ON whole.oid = pg_partition_root(class.oid)
WHERE held.locktype = 'relation' AND held.pid <> pg_backend_pid() AND class.relkind IN ('r', 'p')
  AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND held.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  AND class.relnamespace = current_schema()::regnamespace;

-- name: server_settings
-- What of the server decides whether a commit outlives it, and its clock.
SELECT
    current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
    current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('synchronous_standby_names') AS standbys, pg_is_in_recovery() AS standby,
    current_setting('max_connections')::int AS max_connections,
    has_schema_privilege(current_schema(), 'CREATE') AS may_create,
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us;

-- name: has_migrations
-- Whether any migration was ever begun.
SELECT to_regclass('schema_migration') IS NOT NULL;

-- name: create_migrations
-- Which numbered migrations have run, and whether the release before lives with them.
DO $$ BEGIN
CREATE TABLE IF NOT EXISTS schema_migration (
    number integer PRIMARY KEY,
    name   text NOT NULL,
    sha256 text NOT NULL,
    kind   text NOT NULL DEFAULT 'contract'
);
IF NOT EXISTS (  -- up to 0.2
    SELECT FROM pg_attribute WHERE attrelid = 'schema_migration'::regclass AND attname = 'kind' AND NOT attisdropped
) THEN
    ALTER TABLE schema_migration ADD COLUMN kind text NOT NULL DEFAULT 'contract';
END IF;
END $$;

-- name: done_migrations
-- Those that have run; the kind has no column in a database of 0.2.
SELECT number, name, sha256, coalesce(to_jsonb(schema_migration) ->> 'kind', 'contract') AS kind
FROM schema_migration ORDER BY number;

-- name: unbounded
-- For the transaction of a migration.
SET LOCAL statement_timeout = 0;

-- name: add_months
-- The parts of this month and the next one.
SELECT amends_add_months();

-- name: advance_mark
-- History is in order up to the last turn that is not younger than $1: it is looked at from there on. Once a day.
UPDATE verified_mark SET
    jseq = found.jseq, audit_seq = found.seq, audit_hash = found.hash, at_us = found.at_us
FROM (
    WITH RECURSIVE halving AS (
        SELECT coalesce((SELECT max(audit_seq) FROM archived), 0) AS low, audit_seq + 1 AS high
        FROM journal_head WHERE shard = 0
        UNION ALL
        SELECT
            CASE WHEN entry.at_us <= $1 THEN entry.seq ELSE low END,
            CASE WHEN entry.at_us <= $1 THEN high ELSE entry.seq END
        FROM halving
        CROSS JOIN LATERAL (SELECT seq, at_us FROM audit_log WHERE shard = 0 AND seq = (low + high) / 2) AS entry
        WHERE high - low > 1
    )
    SELECT jseq, seq, hash, at_us FROM audit_log WHERE shard = 0 AND seq = (SELECT max(low) FROM halving)
) AS found
WHERE verified_mark.shard = 0 AND found.jseq > verified_mark.jseq AND verified_mark.at_us <= $1::bigint - 86400000000
  AND NOT EXISTS (SELECT FROM recorded_violation);

-- name: applied_views
-- The views that were applied last, and by which release.
SELECT sha256, version FROM schema_views WHERE shard = 0;

-- name: record_views
-- These were.
INSERT INTO schema_views (shard, sha256, version) VALUES (0, $1, $2)
ON CONFLICT (shard) DO UPDATE SET sha256 = excluded.sha256, version = excluded.version;

-- name: record_migration
-- One more has run.
INSERT INTO schema_migration (number, name, sha256, kind) VALUES ($1, $2, $3, $4);

-- name: read_case
-- One case.
SELECT case_id, kind, target_ref, state, opened_us, resolved_us, recovery_trace_id, commands, evidence, entity
FROM ops_case WHERE case_id = $1;

-- name: matrix_counts
-- Runs by row and outcome.
SELECT matrix_row, count(*) AS runs,
       count(*) FILTER (WHERE final_outcome = 'recovered') AS recovered,
       count(*) FILTER (WHERE final_outcome = 'degraded') AS degraded,
       count(*) FILTER (WHERE final_outcome = 'failed') AS failed,
       count(*) FILTER (WHERE final_outcome IS NULL) AS open
FROM recovery_run GROUP BY matrix_row;

-- name: recent_recoveries
-- The newest recovery runs and the traces they began in.
SELECT recovery_trace_id, original_trace_id FROM recovery_run ORDER BY started_us DESC LIMIT $1;

-- name: published_since
-- What was published, after a place in the order of time and up to an instant, a page at a time.
SELECT outbox_id, entity, stream, subject, payload, trace_id, span_id, created_us, state, attempts
FROM outbox
WHERE stream = $1 AND (created_us, outbox_id) > ($2, $3) AND created_us <= $4 AND state = 'published'
ORDER BY created_us, outbox_id LIMIT $5;

-- name: republish_outcome
-- How a republish of that request ended.
SELECT action, details FROM audit_log
WHERE target_ref = $1 AND action LIKE 'outbox.republish.%' AND details ->> 'request_id' = $2 ORDER BY seq DESC LIMIT 1;

-- name: role_facts
-- Who we are, and the role the runtime works as in this database.
SELECT name, quote_ident(name) AS quoted, quote_ident(current_user) AS owner, quote_ident(current_schema()) AS schema,
       quote_ident(current_database()) AS database,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       EXISTS (SELECT FROM pg_roles WHERE rolname = name) AS there,
       EXISTS (SELECT FROM pg_auth_members
               JOIN pg_roles AS role ON role.oid = roleid JOIN pg_roles AS us ON us.oid = member
               WHERE role.rolname = name AND us.rolname = current_user AND pg_has_role(us.oid, role.oid, 'USAGE')) AS member
FROM (SELECT left('amends_runtime_' || current_database(), 63) AS name) AS wanted;

-- name: role_exists
-- Whether there is such a role.
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1);

-- name: role_login
-- The statement that gives a role its password, quoted by the server itself.
SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text);

-- name: has_installation
-- Whether the table that follows is there: a standby asks before anything is migrated.
SELECT to_regclass('installation') IS NOT NULL;

-- name: has_runs
-- Whether there can be recovery runs yet.
SELECT to_regclass('recovery_run') IS NOT NULL;

-- name: rows_of_open_runs
-- Under which rows of other matrices recovery runs are open: the row as it was declared then, how many, and the first.
SELECT r.matrix_row, r.matrix_version, count(*) AS runs,
       (array_agg(r.recovery_id || ' of ' || r.entity ORDER BY r.recovery_id))[1:$2] AS named,
       (SELECT each::text FROM document d CROSS JOIN jsonb_array_elements(d.body -> 'rows') each
        WHERE d.sha256 = r.matrix_sha256 AND each ->> 'id' = r.matrix_row) AS row
FROM recovery_run r
WHERE r.ended_us IS NULL AND r.matrix_sha256 <> $1
GROUP BY r.matrix_row, r.matrix_version, r.matrix_sha256
ORDER BY r.matrix_row, r.matrix_version, r.matrix_sha256;

-- name: read_installation
-- What is set for the whole installation.
SELECT value FROM installation WHERE name = $1;

-- name: claim_installation
-- Set what nobody has set yet.
INSERT INTO installation (name, value, set_us) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;

-- name: change_installation
-- Set it anew, on purpose.
UPDATE installation SET value = $2, set_us = $3 WHERE name = $1;

-- name: raise_lease
-- The epoch goes up by so much, if it is that epoch's, and nobody holds the lease any more.
UPDATE lease SET epoch = epoch + $2, holder = ''
WHERE coalesce((to_jsonb(lease) ->> 'shard')::integer, 0) = 0 AND epoch = $1 RETURNING epoch;

-- name: raise_lease_to
-- The epoch goes up to that one and nobody holds the lease, if it is still its holder's; kept as a document.
WITH raised AS (
    UPDATE lease SET epoch = $2, holder = ''
    WHERE coalesce((to_jsonb(lease) ->> 'shard')::integer, 0) = 0 AND epoch = $1 AND epoch < $2 RETURNING epoch
)
INSERT INTO document (sha256, kind, body, stored_us) SELECT $3, $4, $5::text::jsonb, $6 FROM raised RETURNING sha256;
