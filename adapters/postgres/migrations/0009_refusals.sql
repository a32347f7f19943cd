-- Refusals that are judged anew from now on (api.md 3): a repeat must not get what an older release has kept.
UPDATE command SET key = NULL, body_hash = '', reply = ''
WHERE key IS NOT NULL AND http IN (404, 409) AND error_code NOT IN ('already_exists', 'idempotency_mismatch');
