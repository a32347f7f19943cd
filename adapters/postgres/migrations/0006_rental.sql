-- One machine is one node (states.md, Node): its SSH host key stands with one node that is not retired (A1).

DO $$
DECLARE
    twice text;
BEGIN
    SELECT string_agg(names, '; ') INTO twice FROM (
        SELECT string_agg(node_id, ' and ' ORDER BY node_id) AS names
        FROM nodes WHERE state <> 'retired' GROUP BY body ->> 'ssh_host_key' HAVING count(*) > 1
    ) AS shared;
    IF twice IS NOT NULL THEN
        RAISE EXCEPTION 'one machine stands under several nodes: %. Retire all but one of each with the release before', twice
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
END $$;
CREATE UNIQUE INDEX node_host_key ON nodes ((body ->> 'ssh_host_key')) WHERE state <> 'retired';
