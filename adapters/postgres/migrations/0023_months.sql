-- contract: history lies in one part a month (tables.md, Growth). Ended steps, events and runs, and what is only ever
-- inserted: commands, failures, actions, compensations, the audit log, the digest chain. A part can be exported and
-- taken out whole (`amends archive`). What is unique within a month is kept so by its part, what is unique over all
-- time by the key tables.

SELECT set_config('amends.epoch', epoch::text, true) FROM journal_head;

CREATE FUNCTION amends_month_after(month integer) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE month % 100 WHEN 12 THEN month + 89 ELSE month + 1 END;

-- The tables that have a part a month.
CREATE TABLE monthly (name text PRIMARY KEY);

-- One more part, with the triggers of the whole; `bounds` as ATTACH PARTITION wants them. Attaching lets others write.
CREATE FUNCTION amends_add_part(whole text, part text, bounds text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    definition text;
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)', part, whole);
    FOR definition IN
        SELECT replace(pg_get_triggerdef(oid), format(' ON %I.%I ', current_schema(), whole),
                       format(' ON %I.%I ', current_schema(), part))
        FROM pg_trigger
        WHERE tgrelid = whole::regclass AND NOT tgisinternal AND tgtype & 1 = 0 AND tgnewtable IS NULL
    LOOP
        EXECUTE definition;
    END LOOP;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I %s', whole, part, bounds);
END $$;

-- The parts of this month and the next one; what is there stays. Returns how many were made. Where somebody holds a lock
-- it is tried again later, and a month that has no part when it comes lies in the part for everything else.
CREATE FUNCTION amends_add_months() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    whole text;
    month integer;
    made  integer := 0;
BEGIN
    PERFORM set_config('lock_timeout', '1s', true);
    FOR whole, month IN
        SELECT name, wanted FROM monthly
        CROSS JOIN (VALUES (amends_month()), (amends_month_after(amends_month()))) AS months (wanted)
        WHERE NOT EXISTS (SELECT FROM monthly_part WHERE monthly_part.whole = name AND wanted >= since AND wanted < till)
        ORDER BY name, wanted
    LOOP
        BEGIN
            PERFORM amends_add_part(whole, whole || '_' || month,
                                    format('FOR VALUES FROM (%s) TO (%s)', month, amends_month_after(month)));
            made := made + 1;
        EXCEPTION WHEN lock_not_available OR check_violation THEN
            RAISE WARNING 'no part of % for %: %', whole, month, SQLERRM;
        END;
    END LOOP;
    RETURN made;
END $$;

-- Makes a table one of parts: what is in it is its first part, up to this month; nothing is copied.
CREATE FUNCTION amends_part_by_month(whole text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    month  integer := amends_month();
    part   text := whole || '_first';
    said   record;
    later  text[] := '{}';
BEGIN
    FOR said IN
        SELECT conname, contype, (
            SELECT string_agg(quote_ident(attname), ', ' ORDER BY place) FROM unnest(conkey) WITH ORDINALITY AS key (number, place)
            JOIN pg_attribute ON attrelid = conrelid AND attnum = number
        ) AS columns
        FROM pg_constraint WHERE conrelid = whole::regclass AND contype IN ('p', 'u')
    LOOP
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', whole, said.conname);
        later := later || format('ALTER TABLE %I ADD CONSTRAINT %I %s (%s, month)', whole, said.conname,
                                 CASE said.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END, said.columns);
    END LOOP;
    FOR said IN
        SELECT relname, pg_get_indexdef(indexrelid) AS definition
        FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = whole::regclass
    LOOP
        later := later || said.definition;
        EXECUTE format('ALTER INDEX %I RENAME TO %I', said.relname, said.relname || '_first');
    END LOOP;
    FOR said IN
        SELECT tgname, pg_get_triggerdef(oid) AS definition, tgtype & 1 = 1 OR tgnewtable IS NOT NULL AS of_the_whole
        FROM pg_trigger WHERE tgrelid = whole::regclass AND NOT tgisinternal
    LOOP
        later := later || said.definition;
        IF said.of_the_whole THEN
            EXECUTE format('DROP TRIGGER %I ON %I', said.tgname, whole);
        END IF;
    END LOOP;
    EXECUTE format('ALTER TABLE %I RENAME TO %I', whole, part);
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = part::regclass AND attname = 'month') THEN
        EXECUTE format('ALTER TABLE %I ADD COLUMN month integer NOT NULL DEFAULT %s', part, month);
    END IF;
    EXECUTE format('ALTER TABLE %I ALTER COLUMN month SET DEFAULT amends_month()', part);
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE) '
                   'PARTITION BY RANGE (month)', whole, part);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (1) TO (%s)', whole, part,
                   amends_month_after(month));
    FOR said IN SELECT definition FROM unnest(later) AS definition LOOP
        EXECUTE said.definition;
    END LOOP;
    PERFORM amends_add_part(whole, whole || '_else', 'DEFAULT');
    INSERT INTO monthly VALUES (whole);
END $$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['step', 'outbox', 'recovery_run'] LOOP
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', name, name || '_closed');
        PERFORM amends_part_by_month(name || '_closed');
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (1) TO (MAXVALUE)', name, name || '_closed');
    END LOOP;
    FOREACH name IN ARRAY ARRAY['command', 'failure', 'recovery_action', 'compensation', 'audit_log', 'journal_digest'] LOOP
        PERFORM amends_part_by_month(name);
    END LOOP;
    EXECUTE format('ALTER FUNCTION amends_add_months() SET search_path = %I, pg_temp', current_schema());
END $$;
DROP FUNCTION amends_part_by_month;
REVOKE EXECUTE ON FUNCTION amends_add_part, amends_add_months FROM PUBLIC;

-- Where the history that is still here begins: what came before lies in archives. One row for each `amends archive`.
CREATE TABLE archived (
    seq             bigint  PRIMARY KEY,  -- the last turn that is archived
    digest          text    NOT NULL,
    audit_seq       bigint  NOT NULL,
    audit_hash      text    NOT NULL,
    before_month    integer NOT NULL UNIQUE,
    manifest_sha256 text    NOT NULL,
    at_us           bigint  NOT NULL
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON archived EXECUTE FUNCTION amends_append_only();

-- What archived entries of the audit log say of money (how the end of a meter was evaluated) stays here.
CREATE TABLE kept_evaluation (
    target_ref        text   NOT NULL,
    seq               bigint NOT NULL,
    audit_id          text   NOT NULL,
    at_us             bigint NOT NULL,
    trace_id          text,
    recovery_trace_id text,
    details           json   NOT NULL,
    PRIMARY KEY (target_ref, seq)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON kept_evaluation EXECUTE FUNCTION amends_append_only();
CREATE TRIGGER born BEFORE INSERT ON kept_evaluation EXECUTE FUNCTION amends_guard();

-- The parts by month, with the first month and the one after the last.
CREATE VIEW monthly_part AS
SELECT name AS whole, part.relname AS part, bounds[1]::integer AS since, bounds[2]::integer AS till
FROM monthly
JOIN pg_inherits ON inhparent = monthly.name::regclass JOIN pg_class AS part ON part.oid = inhrelid
CROSS JOIN regexp_match(pg_get_expr(relpartbound, part.oid), '\((\d+)\) TO \((\d+)\)') AS bounds
WHERE bounds IS NOT NULL;

-- How many rows of a part are of months before one.
CREATE FUNCTION amends_rows_before(part text, before integer) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    found bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM %I WHERE month < $1', part) INTO found USING before;
    RETURN found;
END $$;

-- Up to where `invariant_violation` has found nothing in history, a week behind: it looks from here on.
CREATE TABLE verified_mark (
    shard      integer PRIMARY KEY,
    jseq       bigint  NOT NULL,
    audit_seq  bigint  NOT NULL,
    audit_hash text    NOT NULL,
    at_us      bigint  NOT NULL
);
INSERT INTO verified_mark VALUES (0, 0, 0, repeat('0', 64), 0);
CREATE TRIGGER born BEFORE INSERT ON verified_mark EXECUTE FUNCTION amends_guard();
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON verified_mark EXECUTE FUNCTION amends_guard();

-- The views hang on the first parts by now: they are applied again.
DELETE FROM schema_views;
SELECT amends_add_months();
