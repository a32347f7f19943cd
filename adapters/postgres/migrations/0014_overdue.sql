-- What is due is done, or a case says why not: a timer that a running runtime has let lie for minutes was lost (A3).
ALTER VIEW public_v1.invariant_violation SET SCHEMA public;
ALTER VIEW invariant_violation RENAME TO recorded_violation;

CREATE VIEW public_v1.invariant_violation AS
SELECT name, target_ref, details FROM recorded_violation
UNION ALL
SELECT 'A3', late.ref, jsonb_build_object('what', 'a timer is overdue and no case says why', 'due_us', late.due_us)
FROM (
    SELECT 'account:' || account_id AS ref, due_us FROM accounts
    UNION ALL SELECT 'node:' || node_id, due_us FROM nodes
    UNION ALL SELECT 'allocation:' || allocation_id, due_us FROM allocations
    UNION ALL SELECT 'notification:' || notification_id, due_us FROM notifications
    UNION ALL SELECT kind || ':' || id, due_us FROM actors
) AS late
CROSS JOIN (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 300000000 AS latest_us
) AS bound
WHERE late.due_us < bound.latest_us
  AND EXISTS (  -- a runtime has been there to do it for as long
      SELECT FROM lease JOIN runtime_epoch ON runtime_epoch.epoch = lease.epoch
      WHERE lease.renewed_at > clock_timestamp() - interval '10 s' AND runtime_epoch.started_us < bound.latest_us
  )
  AND NOT EXISTS (SELECT FROM ops_case WHERE ops_case.entity = late.ref AND ops_case.state <> 'resolved');
