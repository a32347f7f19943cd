-- expand: which rentals have ended since an instant, for the loss of a node that was not heard of after it (R08); what a
-- meter counts in, so that its entries can be checked where they lie (B1, B2).

CREATE INDEX assignments_ended ON assignments (ended_us);

ALTER TABLE meters ADD COLUMN unit_us bigint NOT NULL DEFAULT 0, ADD COLUMN window_us bigint NOT NULL DEFAULT 0;

-- When the nodes of a part of the fleet were last heard: 256 rows a checkpoint, however many nodes there are.
CREATE TABLE nodes_seen (
    part text PRIMARY KEY,
    seen json NOT NULL,
    jseq bigint NOT NULL
);
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON nodes_seen EXECUTE FUNCTION amends_guard();
CREATE TRIGGER born BEFORE INSERT ON nodes_seen EXECUTE FUNCTION amends_guard();
