-- What every commit begins with, and what it takes in.

-- name: consume
-- Durable messages taken in by this commit's turns.
DELETE FROM message WHERE message_id = ANY ($1::text[]);

-- name: advance_head
-- The compare-and-set every commit begins with: fence, total order, audit sequence and the digests of its rows in one.
WITH moved AS (
    UPDATE journal_head SET seq = $1, audit_seq = $2, hash = $3, at_us = greatest(at_us, $4), digest = $7
    WHERE shard = 0 AND epoch = $5 AND seq = $6 RETURNING shard, epoch
)
INSERT INTO journal_digest (shard, seq, epoch, audit_seq, audit_hash, prev_hash, hash, leaves)
SELECT shard, $1, epoch, $2, $3, $8, $7, $9 FROM moved;

-- name: read_head
-- Where the journal stands.
SELECT epoch, seq, audit_seq, hash, digest, at_us FROM journal_head WHERE shard = 0;

-- name: settled_head
-- The same once no session is in the middle of moving it; refused after the lock timeout.
SELECT epoch, seq, audit_seq, hash, digest, at_us FROM journal_head WHERE shard = 0 FOR UPDATE;
