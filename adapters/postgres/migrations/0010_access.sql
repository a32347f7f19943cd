-- How a customer logs in (api.md 3): beside the allocation from `active` on. What was active before this release gets
-- what its node says now, as the runtime itself fills it in from now on.

SELECT set_config('amends.epoch', epoch::text, true) FROM journal_head;
UPDATE allocations SET body = allocations.body || jsonb_build_object('access', jsonb_build_object(
    'user', 'am-' || substr(allocations.allocation_id, 7),
    'host', nodes.body ->> 'ssh_host',
    'port', (nodes.body ->> 'ssh_port')::integer,
    'host_key', nodes.body ->> 'ssh_host_key',
    'fingerprint', 'SHA256:' || rtrim(
        encode(sha256(decode(split_part(nodes.body ->> 'ssh_host_key', ' ', 2), 'base64')), 'base64'), '=')
))
FROM nodes
WHERE nodes.node_id = allocations.body ->> 'node_id' AND allocations.state IN ('active', 'releasing');

DROP VIEW public_v1.allocation;
CREATE VIEW public_v1.allocation AS
SELECT
    allocation_id,
    body ->> 'account_id' AS account_id,
    body ->> 'node_id' AS node_id,
    state,
    body ->> 'failure_code' AS failure_code,
    body ->> 'release_cause' AS release_cause,
    coalesce((body ->> 'cleanup_pending')::boolean, false) AS cleanup_pending,
    coalesce((body ->> 'cleanup_attempts')::integer, 0) AS cleanup_attempts,
    coalesce(body ->> 'billing_state', 'none') AS billing_state,
    (body ->> 'rate_uminor_per_hour')::bigint AS rate_uminor_per_hour,
    body ->> 'attempt_id' AS attempt_id,
    body ->> 'external_ref' AS external_ref,
    body -> 'access' AS access,
    (body ->> 'requested_us')::bigint AS requested_us,
    (body ->> 'activated_us')::bigint AS activated_us,
    (body ->> 'ended_us')::bigint AS ended_us,
    nullif(body ->> 'trace_id', '') AS trace_id,
    version
FROM allocations;

-- What must be the same for whoever runs this installation, such as the fingerprint of the key to its nodes.
CREATE TABLE installation (
    name   text PRIMARY KEY,
    value  text NOT NULL,
    set_us bigint NOT NULL
);
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON installation EXECUTE FUNCTION amends_guard();
CREATE TRIGGER born BEFORE INSERT ON installation EXECUTE FUNCTION amends_guard();
