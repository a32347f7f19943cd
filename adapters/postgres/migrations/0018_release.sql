-- expand: which release has applied the views, so that the one before leaves them as they are.

ALTER TABLE schema_views ADD COLUMN version text NOT NULL DEFAULT '';
