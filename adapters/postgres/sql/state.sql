-- Actors' states: written by compare-and-set on the version, read back, and asked after without waiting.

-- name: state_actors
-- Compare-and-set; a row whose version does not fit is left alone, and the count tells.
INSERT INTO actors AS known (kind, id, state, version, due_us, body)
SELECT kind, id, state, version, due_us, body::jsonb
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[]) AS row (kind, id, state, version, due_us, body)
ON CONFLICT (kind, id) DO UPDATE SET
    state = excluded.state, version = excluded.version, due_us = excluded.due_us, body = excluded.body
WHERE known.version = excluded.version - 1;

-- name: free_actors
-- Of these, the rows nobody else holds right now.
SELECT id AS id FROM actors WHERE kind = $1 AND id = ANY ($2::text[]) FOR UPDATE SKIP LOCKED;

-- name: read_actors
-- One actor.
SELECT body::text AS body FROM actors WHERE kind = $1 AND id = $2;

-- name: live_actors
-- Every actor that still lives or owes.
SELECT id AS id, due_us, body::text AS body FROM actors WHERE kind = $1 AND (true);

-- name: state_notifications
-- Compare-and-set; a row whose version does not fit is left alone, and the count tells.
INSERT INTO notifications AS known (notification_id, state, version, due_us, body)
SELECT notification_id, state, version, due_us, body::jsonb
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[]) AS row (notification_id, state, version, due_us, body)
ON CONFLICT (notification_id) DO UPDATE SET
    state = excluded.state, version = excluded.version, due_us = excluded.due_us, body = excluded.body
WHERE known.version = excluded.version - 1;

-- name: free_notifications
-- Of these, the rows nobody else holds right now.
SELECT notification_id AS id FROM notifications WHERE notification_id = ANY ($1::text[]) FOR UPDATE SKIP LOCKED;

-- name: read_notifications
-- One actor.
SELECT body::text AS body FROM notifications WHERE notification_id = $1;

-- name: live_notifications
-- Every actor that still lives or owes.
SELECT notification_id AS id, due_us, body::text AS body FROM notifications WHERE state IN ('pending', 'parked');

-- name: state_accounts
-- Compare-and-set; a row whose version does not fit is left alone, and the count tells.
INSERT INTO accounts AS known (account_id, state, version, due_us, body)
SELECT account_id, state, version, due_us, body::jsonb
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[]) AS row (account_id, state, version, due_us, body)
ON CONFLICT (account_id) DO UPDATE SET
    state = excluded.state, version = excluded.version, due_us = excluded.due_us, body = excluded.body
WHERE known.version = excluded.version - 1;

-- name: free_accounts
-- Of these, the rows nobody else holds right now.
SELECT account_id AS id FROM accounts WHERE account_id = ANY ($1::text[]) FOR UPDATE SKIP LOCKED;

-- name: read_accounts
-- One actor.
SELECT body::text AS body FROM accounts WHERE account_id = $1;

-- name: live_accounts
-- Every actor that still lives or owes.
SELECT account_id AS id, due_us, body::text AS body FROM accounts WHERE true;

-- name: state_nodes
-- Compare-and-set; a row whose version does not fit is left alone, and the count tells.
INSERT INTO nodes AS known (node_id, state, version, due_us, body)
SELECT node_id, state, version, due_us, body::jsonb
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[]) AS row (node_id, state, version, due_us, body)
ON CONFLICT (node_id) DO UPDATE SET
    state = excluded.state, version = excluded.version, due_us = excluded.due_us, body = excluded.body
WHERE known.version = excluded.version - 1;

-- name: free_nodes
-- Of these, the rows nobody else holds right now.
SELECT node_id AS id FROM nodes WHERE node_id = ANY ($1::text[]) FOR UPDATE SKIP LOCKED;

-- name: read_nodes
-- One actor.
SELECT body::text AS body FROM nodes WHERE node_id = $1;

-- name: live_nodes
-- Every actor that still lives or owes.
SELECT node_id AS id, due_us, body::text AS body FROM nodes WHERE state <> 'retired';

-- name: state_allocations
-- Compare-and-set; a row whose version does not fit is left alone, and the count tells.
INSERT INTO allocations AS known (allocation_id, state, version, due_us, body)
SELECT allocation_id, state, version, due_us, body::jsonb
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[]) AS row (allocation_id, state, version, due_us, body)
ON CONFLICT (allocation_id) DO UPDATE SET
    state = excluded.state, version = excluded.version, due_us = excluded.due_us, body = excluded.body
WHERE known.version = excluded.version - 1;

-- name: free_allocations
-- Of these, the rows nobody else holds right now.
SELECT allocation_id AS id FROM allocations WHERE allocation_id = ANY ($1::text[]) FOR UPDATE SKIP LOCKED;

-- name: read_allocations
-- One actor.
SELECT body::text AS body FROM allocations WHERE allocation_id = $1;

-- name: live_allocations
-- Every actor that still lives or owes.
SELECT allocation_id AS id, due_us, body::text AS body FROM allocations WHERE state NOT IN ('released', 'failed') OR body ? 'owing' OR body ? 'cases' OR body ? 'runs';
