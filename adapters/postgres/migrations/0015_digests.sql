-- The digest chain: one row a commit, with a digest of every row it wrote (`amends.values.facets`). The first row is the
-- beginning: what was written before it is not covered, and how many rows that were stands in it.

CREATE TABLE journal_digest (
    seq        bigint PRIMARY KEY,  -- the last turn of the commit; the first is the one after the commit before
    epoch      bigint NOT NULL,
    audit_seq  bigint NOT NULL,
    audit_hash text   NOT NULL,
    prev_hash  text   NOT NULL,
    hash       text   NOT NULL,
    leaves     text   NOT NULL
);
ALTER TABLE journal_digest ALTER COLUMN leaves SET STORAGE EXTERNAL;  -- mostly digests: nothing to be compressed
ALTER TABLE journal_head ADD COLUMN digest text NOT NULL DEFAULT repeat('0', 64);

DO $$
DECLARE
    counted text;
    found   bigint;
    counts  jsonb := '{}';
BEGIN
    FOREACH counted IN ARRAY ARRAY[
        'actors', 'notifications', 'accounts', 'nodes', 'allocations', 'assignments', 'debts', 'meters', 'ledger_entries',
        'failure', 'recovery_run', 'recovery_action', 'compensation', 'ops_case', 'step', 'outbox', 'message',
        'message_quarantine', 'command', 'node_seen'
    ] LOOP
        EXECUTE format('SELECT count(*) FROM %I', counted) INTO found;
        counts := counts || jsonb_build_object(counted, found);
    END LOOP;
    INSERT INTO journal_digest (seq, epoch, audit_seq, audit_hash, prev_hash, hash, leaves)
    SELECT seq, epoch, audit_seq, hash, repeat('0', 64), encode(sha256(convert_to(
        format('%s %s %s %s %s', repeat('0', 64), seq, epoch, audit_seq, hash) || E'\n' || counts::text, 'UTF8')), 'hex'),
        counts::text
    FROM journal_head;
    UPDATE journal_head SET digest = (SELECT hash FROM journal_digest);
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON journal_digest EXECUTE FUNCTION amends_append_only();
-- Of each row, not of the statement: one that finds the head moved on writes none, and is no trespasser.
CREATE TRIGGER born AFTER INSERT ON journal_digest FOR EACH ROW EXECUTE FUNCTION amends_guard();
