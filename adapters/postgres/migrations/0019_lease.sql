-- contract: the lease has a shard too. Last of all, since its holder's renewals wait for it.

ALTER TABLE lease RENAME COLUMN id TO shard;
ALTER TABLE lease DROP CONSTRAINT lease_id_check;
UPDATE lease SET shard = 0;
