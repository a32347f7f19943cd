-- What a start reads: actors that live, or have ended and owe something, by one rule for all kinds (`derived.sql`).

DROP INDEX notifications_live;
CREATE INDEX notifications_live ON notifications (notification_id)
    WHERE state NOT IN ('sent', 'cancelled') OR body ?| array['owing', 'timers', 'runs', 'cases'];

DROP INDEX nodes_live;
CREATE INDEX nodes_live ON nodes (node_id)
    WHERE state NOT IN ('retired') OR body ?| array['owing', 'timers', 'runs', 'cases'];

DROP INDEX allocations_live;
CREATE INDEX allocations_live ON allocations (allocation_id)
    WHERE state NOT IN ('released', 'failed') OR body ?| array['owing', 'timers', 'runs', 'cases'];
