-- Made by `./run pages` from what row types (`Table`) and actor kinds declare: change those, not this.

-- Every actor's state, whatever table it is in.
CREATE OR REPLACE VIEW entity_state AS
SELECT 'account' AS kind, account_id AS id, 'account' || ':' || account_id AS ref, state, due_us, live, body FROM accounts
UNION ALL
SELECT 'payment' AS kind, payment_id AS id, 'payment' || ':' || payment_id AS ref, state, due_us, live, body FROM payments
UNION ALL
SELECT 'node' AS kind, node_id AS id, 'node' || ':' || node_id AS ref, state, due_us, live, body FROM nodes
UNION ALL
SELECT 'allocation' AS kind, allocation_id AS id, 'allocation' || ':' || allocation_id AS ref, state, due_us, live, body FROM allocations
UNION ALL
SELECT 'attachment' AS kind, attachment_id AS id, 'attachment' || ':' || attachment_id AS ref, state, due_us, live, body FROM platform_storage_attachments
UNION ALL
SELECT 'namespace' AS kind, namespace_id AS id, 'namespace' || ':' || namespace_id AS ref, state, due_us, live, body FROM namespaces
UNION ALL
SELECT 'notification' AS kind, notification_id AS id, 'notification' || ':' || notification_id AS ref, state, due_us, live, body FROM notifications
UNION ALL
SELECT kind AS kind, id AS id, kind || ':' || id AS ref, state, due_us, live, body FROM actors;
