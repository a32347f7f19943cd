-- expand: which rentals have ended since an instant, for the loss of a node that was not heard of after it (R08); what a
-- meter counts in, so that its entries can be checked where they lie (B1, B2).

CREATE INDEX assignments_ended ON assignments (ended_us);

ALTER TABLE meters ADD COLUMN unit_us bigint NOT NULL DEFAULT 0, ADD COLUMN window_us bigint NOT NULL DEFAULT 0;
