-- What must hold (docs/reliability.md), as far as SQL can see it: public_v1.invariant_violation is empty unless
-- something is wrong, at any instant, since each turn is one transaction. Ask for one invariant by its name to pay for
-- that one only; what constraints already refuse is looked for all the same. What is open is always looked at, history
-- from the verified mark on (`verified_since`), so that a look costs no more in a year than in a week; `amends audit
-- verify` looks at all of it.

-- A place after the mark is asked for as a range with an end, however far: so the planner takes it for a few rows.
-- From which turn on history is looked at, and up to which it lies in archives.
CREATE OR REPLACE VIEW verified_since AS
SELECT
    mark.jseq, mark.audit_seq, mark.audit_hash, coalesce((SELECT max(seq) FROM archived), 0) AS archived_jseq
FROM verified_mark AS mark WHERE shard = 0;

-- The audit's last word on an entity. By aggregation, so that no planner walks the whole log backwards for it.
CREATE OR REPLACE VIEW last_audited AS
SELECT
    entity.kind, entity.ref, entity.state,
    (
        SELECT (array_agg(to_state ORDER BY seq DESC))[1] FROM audit_log
        WHERE audit_log.target_ref = entity.ref AND to_state IS NOT NULL
    ) AS audited,
    entity.live, entity.id
FROM entity_state AS entity;

-- The entities of history: those that something was audited of since the mark.
CREATE OR REPLACE VIEW audited_since AS
SELECT DISTINCT target_ref FROM audit_log
WHERE shard = 0 AND seq > (SELECT audit_seq FROM verified_since) AND seq < 9223372036854775807 AND to_state IS NOT NULL;

-- The open runs that living actors hold, by the actor that writes them.
CREATE OR REPLACE VIEW held_run AS
SELECT actor.ref, run.value ->> 'recovery_id' AS recovery_id
FROM (SELECT ref, body FROM entity_state WHERE live AND body ? 'runs') AS actor, jsonb_each(actor.body -> 'runs') AS run;

-- What each meter of this release has counted, and what its entries come to (credit-policy.md).
CREATE OR REPLACE VIEW meter_sum AS
SELECT
    meter.meter_id, meter.stopped_us, meter.started_us, meter.window_us, meter.posted_through_us,
    div(
        meter.rate_uminor_per_hour::numeric * meter.unit_us
        * ((least(meter.stopped_us, meter.posted_through_us) - meter.started_us) / meter.unit_us),
        3600000000000000
    ) AS counted,
    entries.*
FROM (SELECT * FROM meters WHERE unit_us > 0 AND jseq > (SELECT jseq FROM verified_since) AND jseq < 9223372036854775807) AS meter
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(amount_minor) FILTER (WHERE entry_type = 'debit'), 0) AS taken,
        coalesce(sum(amount_minor) FILTER (WHERE entry_type = 'credit'), 0) AS given,
        coalesce(sum(amount_minor) FILTER (WHERE entry_type = 'credit' AND idempotency_key LIKE '%:overrun:%'), 0)
            AS overrun,
        coalesce(sum(amount_minor) FILTER (WHERE entry_type = 'debit' AND window_start_us IS NULL), 0) AS minimum,
        count(DISTINCT window_start_us) FILTER (WHERE entry_type = 'debit') AS windows,
        min(window_start_us) FILTER (WHERE entry_type = 'debit') AS first_us,
        max(window_start_us) FILTER (WHERE entry_type = 'debit') AS last_us
    FROM ledger_entries WHERE ledger_entries.meter_id = meter.meter_id
) AS entries;

-- The attachments that nothing moves on, neither they themselves nor their access nor their namespace, and no case.
CREATE OR REPLACE VIEW idle_attachment AS
SELECT 'attachment:' || attachment_id AS ref, attachment.state, attachment.due_us, allocations.state AS allocation
FROM platform_storage_attachments AS attachment
LEFT JOIN allocations ON allocations.allocation_id = attachment.allocation_id
WHERE attachment.live
  AND NOT EXISTS (SELECT FROM ops_case WHERE ops_case.entity = 'attachment:' || attachment_id AND ops_case.state = 'open')
  AND NOT EXISTS (
      SELECT FROM (VALUES
          ('attachment', attachment_id), ('namespace', attachment.namespace_id),
          ('grant', attachment.namespace_id || '.' || coalesce(attachment.node_id, ''))
      ) AS mover (kind, id)
      WHERE EXISTS (SELECT FROM step WHERE step.entity = mover.kind || ':' || mover.id AND step.month = 0)
         OR EXISTS (SELECT FROM message WHERE to_kind = mover.kind AND to_id = mover.id)
  );

CREATE OR REPLACE VIEW recorded_violation AS
-- A1: an allocation and its node belong together while it lives, and no other does.
SELECT 'A1' AS name, 'node:' || node_id AS target_ref,
    jsonb_build_object('what', 'several live assignments', 'allocations', jsonb_agg(allocation_id)) AS details
FROM assignments WHERE state <> 'ended' GROUP BY node_id HAVING count(*) > 1
UNION ALL
SELECT 'A1', 'allocation:' || assignments.allocation_id,
    jsonb_build_object('what', 'a live assignment does not fit its allocation', 'assignment', assignments.state,
                       'node_id', assignments.node_id, 'allocation', allocations.state)
FROM assignments LEFT JOIN allocations ON allocations.allocation_id = assignments.allocation_id
WHERE assignments.state <> 'ended' AND (
    allocations.state IS NULL OR allocations.node_id IS DISTINCT FROM assignments.node_id
    OR allocations.state NOT IN ('provisioning', 'activating', 'active', 'releasing')
    OR (assignments.state = 'active') <> (allocations.state IN ('active', 'releasing'))
)
UNION ALL
SELECT 'A1', 'allocation:' || allocation_id, jsonb_build_object('what', 'it lives without an assignment', 'state', state)
FROM allocations
WHERE live AND state IN ('provisioning', 'activating', 'active', 'releasing')
  AND NOT EXISTS (SELECT FROM assignments WHERE assignments.allocation_id = allocations.allocation_id
                  AND assignments.state <> 'ended')
UNION ALL
-- A3: whatever is on its way has something that moves it on.
SELECT 'A3', 'allocation:' || allocation_id, jsonb_build_object('what', 'nothing moves it on', 'state', state)
FROM allocations
WHERE live AND state IN ('requested', 'provisioning', 'activating', 'releasing') AND due_us IS NULL AND NOT body ? 'cases'
  AND NOT EXISTS (SELECT FROM step WHERE step.entity = 'allocation:' || allocation_id AND step.month = 0)
  AND NOT EXISTS (SELECT FROM message WHERE to_kind = 'allocation' AND to_id = allocation_id)
UNION ALL
SELECT 'A3', 'notification:' || notification_id, jsonb_build_object('what', 'nothing moves it on', 'state', state)
FROM notifications
WHERE live AND state = 'pending' AND due_us IS NULL AND NOT body ? 'cases'
  AND NOT EXISTS (SELECT FROM step WHERE step.entity = 'notification:' || notification_id AND step.month = 0)
  AND NOT EXISTS (SELECT FROM message WHERE to_kind = 'notification' AND to_id = notification_id)
UNION ALL
SELECT 'A3', 'allocation:' || allocation_id,
    jsonb_build_object('what', 'nothing moves its cleanup on', 'debt_id', debt_id, 'state', allocations.state)
FROM debts JOIN allocations USING (allocation_id)
WHERE settled_us IS NULL AND kind = 'user' AND due_us IS NULL
  AND NOT EXISTS (SELECT FROM step WHERE step.entity = 'allocation:' || allocation_id AND step.month = 0)
  AND NOT EXISTS (SELECT FROM message WHERE to_kind = 'allocation' AND to_id = allocation_id)
  AND NOT EXISTS (SELECT FROM ops_case WHERE ops_case.entity = 'allocation:' || allocation_id
                  AND ops_case.state = 'open')
UNION ALL
-- A quarantined node whose way back is free (`try_return`): no reason that only an operator lifts, no debt; or whose
-- inventory is owed after a restore.
SELECT 'A3', 'node:' || node_id,
    jsonb_build_object('what', 'nothing brings it back', 'reasons', body -> 'quarantine_reasons')
FROM nodes
WHERE state = 'quarantined' AND due_us IS NULL AND (
    coalesce(body #> '{way_back,returning}', body -> 'returning') = 'true'
    OR body -> 'quarantine_reasons' <@ '["offline", "cleanup_exhausted"]'
    OR body -> 'quarantine_reasons' @> '["restored"]'
)
  AND NOT EXISTS (SELECT FROM debts WHERE debts.node_id = nodes.node_id AND settled_us IS NULL)
  AND NOT EXISTS (SELECT FROM step WHERE step.entity = 'node:' || node_id AND step.month = 0)
  AND NOT EXISTS (SELECT FROM message WHERE to_kind = 'node' AND to_id = node_id)
  AND NOT EXISTS (SELECT FROM ops_case WHERE ops_case.entity = 'node:' || node_id AND ops_case.state = 'open')
UNION ALL
SELECT 'A3', entity, jsonb_build_object('what', 'a step is intended for nobody', 'step_id', step_id, 'step', step.name)
FROM step
WHERE month = 0 AND NOT EXISTS (
    SELECT FROM entity_state AS known
    WHERE known.kind = split_part(step.entity, ':', 1) AND known.id = substr(step.entity, strpos(step.entity, ':') + 1)
)
UNION ALL
-- A4: an allocation says that its cleanup is pending exactly while its node owes it: the user, or a mount. What became
-- of a mount it is told by a message.
SELECT 'A4', target_ref, jsonb_build_object('what', 'a debt whose allocation owes no cleanup', 'debt_id', debt_id,
                                            'allocation_id', debts.allocation_id)
FROM debts LEFT JOIN allocations ON allocations.allocation_id = debts.allocation_id
WHERE settled_us IS NULL AND kind = 'user' AND allocations.cleanup_pending IS NOT true
UNION ALL
SELECT 'A4', 'allocation:' || allocation_id, jsonb_build_object('what', 'a pending cleanup that no debt lists')
FROM allocations
WHERE live AND cleanup_pending
  AND NOT EXISTS (SELECT FROM debts WHERE debts.allocation_id = allocations.allocation_id AND settled_us IS NULL)
  AND NOT EXISTS (SELECT FROM message WHERE to_kind = 'allocation' AND to_id = allocations.allocation_id)
UNION ALL
-- B1, B2, B4: a meter's entries are what it has counted, its windows have no gap, and it gave back no more than it took.
SELECT 'B4', 'meter:' || meter_id, jsonb_build_object('what', 'it has given back more than it took', 'taken', taken,
                                                      'given', given)
FROM meter_sum WHERE given > taken
UNION ALL
SELECT 'B1', 'meter:' || meter_id, jsonb_build_object('what', 'its entries are not what it has counted', 'taken', taken,
                                                      'overrun', overrun, 'minimum', minimum, 'counted', counted)
FROM meter_sum WHERE taken - overrun <> counted + minimum AND given <> taken
UNION ALL
SELECT 'B1', 'meter:' || meter_id, jsonb_build_object('what', 'it has stopped, and not all of it is posted')
FROM meter_sum WHERE posted_through_us < stopped_us
UNION ALL
SELECT 'B2', 'meter:' || meter_id, jsonb_build_object('what', 'its windows have a gap', 'windows', windows)
FROM meter_sum
WHERE posted_through_us > started_us AND (
    (first_us, last_us) IS DISTINCT FROM (
        started_us - started_us % window_us, (posted_through_us - 1) - (posted_through_us - 1) % window_us
    ) OR windows <> (last_us - first_us) / window_us + 1
)
UNION ALL
-- T1, T3: a namespace has one writer, and meanwhile nobody else may write to it; access stands only while an attachment
-- of its pair does, or is being taken back.
SELECT 'T1', 'namespace:' || rw_holder, jsonb_build_object('what', 'several writers', 'attachments', jsonb_agg(attachment_id))
FROM platform_storage_attachments WHERE rw_holder IS NOT NULL GROUP BY rw_holder HAVING count(*) > 1
UNION ALL
SELECT 'T3', 'provider_grant:' || grant_id, jsonb_build_object('what', 'another node has a writer', 'node_id', node_id)
FROM provider_grants AS standing
WHERE state IN ('intended', 'granted') AND mode = 'rw' AND EXISTS (
    SELECT FROM platform_storage_attachments AS writer
    WHERE writer.rw_holder = standing.namespace_id AND writer.node_id IS DISTINCT FROM standing.node_id
      AND writer.state IN ('granted', 'mounting', 'attached')
)
UNION ALL
SELECT 'T3', 'provider_grant:' || grant_id, jsonb_build_object('what', 'it stands, and no attachment holds it')
FROM provider_grants AS standing
WHERE state IN ('intended', 'granted')
  AND NOT EXISTS (SELECT FROM platform_storage_attachments AS holder
                  WHERE (holder.namespace_id, holder.node_id) = (standing.namespace_id, standing.node_id)
                    AND holder.state IN ('validated', 'granted', 'mounting', 'attached', 'detaching', 'detach_failed'))
  AND NOT EXISTS (SELECT FROM step WHERE step.entity = 'grant:' || namespace_id || '.' || node_id AND step.month = 0)
  AND NOT EXISTS (SELECT FROM message WHERE to_kind = 'grant' AND to_id = namespace_id || '.' || node_id)
UNION ALL
-- T2, T4, A3: an attachment does not outlive its allocation, and is moved on.
SELECT 'T4', ref, jsonb_build_object('what', 'it is attached and its allocation is over', 'allocation', allocation)
FROM idle_attachment
WHERE state = 'attached' AND coalesce(allocation NOT IN ('active', 'releasing'), true)
UNION ALL
SELECT 'T2', ref, jsonb_build_object('what', 'it is being attached and its allocation is over', 'state', state,
                                     'allocation', allocation)
FROM idle_attachment
WHERE state IN ('validated', 'granted', 'mounting') AND coalesce(allocation NOT IN ('active', 'releasing'), true)
UNION ALL
SELECT 'A3', ref, jsonb_build_object('what', 'nothing moves it on', 'state', state)
FROM idle_attachment
WHERE state IN ('requested', 'validated', 'granted', 'mounting', 'detaching') AND due_us IS NULL
UNION ALL
-- B1: what an account has is kept with every entry.
SELECT 'B1', 'account:' || account_id, jsonb_build_object('what', 'its balance is not what its months come to')
FROM ledger_balances GROUP BY account_id
HAVING coalesce(sum(balance_minor) FILTER (WHERE month = 0), 0) <> coalesce(sum(balance_minor) FILTER (WHERE month > 0), 0)
UNION ALL
-- A3: an event of Stripe's is deferred only as long as its payment waits.
SELECT 'A3', 'stripe_event:' || event_id, jsonb_build_object('what', 'it is deferred, and its payment does not wait')
FROM stripe_events LEFT JOIN payments ON payments.payment_id = stripe_events.payment_id
WHERE stripe_events.state = 'deferred' AND coalesce(payments.state, '') NOT IN ('noted', 'refused')
UNION ALL
-- B3: one debit a window.
SELECT 'B3', 'meter:' || meter_id || '/window:' || window_start_us,
    jsonb_build_object('what', 'several debits of one window', 'entries', jsonb_agg(entry_id))
FROM ledger_entries WHERE entry_type = 'debit' AND window_start_us IS NOT NULL AND meter_id IN (
    SELECT meter_id FROM ledger_entries
    WHERE jseq > (SELECT jseq FROM verified_since) AND jseq < 9223372036854775807
)
GROUP BY meter_id, window_start_us HAVING count(*) > 1
UNION ALL
-- B6: the clock runs exactly while the allocation is active.
SELECT 'B6', 'allocation:' || allocation_id, jsonb_build_object('what', 'it is active and its clock does not run')
FROM allocations
WHERE live AND state = 'active'
  AND NOT EXISTS (SELECT FROM meters WHERE meters.allocation_id = allocations.allocation_id AND meters.state = 'accruing')
UNION ALL
SELECT 'B6', 'meter:' || meter_id,
    jsonb_build_object('what', 'it runs and its allocation is not active', 'allocation_id', meters.allocation_id,
                       'allocation', allocations.state)
FROM meters LEFT JOIN allocations ON allocations.allocation_id = meters.allocation_id
WHERE meters.state = 'accruing' AND allocations.state IS DISTINCT FROM 'active'
UNION ALL
SELECT 'B6', 'meter:' || meter_id, jsonb_build_object('what', 'it does not say what its allocation says',
                                                      'meter', meters.state, 'stopped_us', stopped_us)
FROM meters JOIN allocations ON allocations.allocation_id = meters.allocation_id
WHERE allocations.live AND (stopped_us < started_us OR meters.state IS DISTINCT FROM
    coalesce(allocations.body #>> '{billing,state}', allocations.body ->> 'billing_state'))
UNION ALL
SELECT 'B6', 'meter:' || meter_id, jsonb_build_object('what', 'it does not say what its allocation says',
                                                      'meter', meters.state, 'stopped_us', stopped_us)
FROM meters JOIN allocations ON allocations.allocation_id = meters.allocation_id
WHERE NOT allocations.live
  AND meters.jseq > (SELECT jseq FROM verified_since) AND meters.jseq < 9223372036854775807
  AND (stopped_us < started_us OR meters.state IS DISTINCT FROM
    coalesce(allocations.body #>> '{billing,state}', allocations.body ->> 'billing_state'))
UNION ALL
-- C1: one compensation a cause: an entity has one open run of a row at most.
SELECT 'C1', entity, jsonb_build_object('what', 'several open runs of one row', 'matrix_row', matrix_row,
                                        'runs', jsonb_agg(recovery_id))
FROM recovery_run WHERE month = 0 GROUP BY entity, matrix_row HAVING count(*) > 1
UNION ALL
-- C4: a run that failed was put into somebody's hands: it names a case that was still open then.
SELECT 'C4', run.entity, jsonb_build_object('what', 'a failed run without a case', 'recovery_id', run.recovery_id)
FROM recovery_run AS run
WHERE run.final_outcome = 'failed'
  AND run.jseq > (SELECT jseq FROM verified_since) AND run.jseq < 9223372036854775807
  AND run.begun_jseq > (SELECT archived_jseq FROM verified_since) AND NOT EXISTS (
    SELECT FROM recovery_action AS action
    JOIN ops_case ON ops_case.kind = action.what AND ops_case.target_ref = action.target_ref
    WHERE action.recovery_trace_id = run.recovery_trace_id AND action.action_type = 'escalate'
      AND (ops_case.state <> 'resolved' OR ops_case.jseq >= run.jseq)
)
UNION ALL
-- C6: no success while an undo is failed; what is open is written by somebody.
SELECT 'C6', run.entity,
    jsonb_build_object('what', 'recovered, though the last undo of a target did not succeed', 'recovery_id',
                       run.recovery_id, 'compensation_id', comp.compensation_id, 'target_ref', comp.target_ref)
FROM compensation AS comp JOIN recovery_run AS run ON run.recovery_trace_id = comp.recovery_trace_id
WHERE run.final_outcome = 'recovered'
  AND run.jseq > (SELECT jseq FROM verified_since) AND run.jseq < 9223372036854775807
  AND comp.outcome <> 'success' AND NOT EXISTS (
    SELECT FROM recovery_action AS later
    WHERE later.recovery_trace_id = comp.recovery_trace_id AND later.target_ref = comp.target_ref
      AND later.sequence > comp.sequence AND later.outcome = 'success'
      AND later.action_type IN ('compensation', 'fallback')
)
UNION ALL
SELECT 'C6', run.entity, jsonb_build_object('what', 'an open run that nobody writes', 'recovery_id', run.recovery_id)
FROM recovery_run AS run
WHERE run.month = 0 AND run.recovery_id NOT IN (SELECT recovery_id FROM held_run WHERE recovery_id IS NOT NULL)
UNION ALL
SELECT 'C6', held.ref, jsonb_build_object('what', 'it writes a run that is not open', 'recovery_id', held.recovery_id)
FROM held_run AS held LEFT JOIN recovery_run AS run ON run.recovery_id = held.recovery_id
WHERE run.recovery_id IS NULL OR run.ended_us IS NOT NULL
UNION ALL
SELECT 'C6', entity, jsonb_build_object('what', 'outcome and end do not fit', 'recovery_id', recovery_id)
FROM recovery_run
WHERE (ended_us IS NULL) = coalesce(final_outcome IN ('recovered', 'failed'), false)
  AND (month = 0 OR (jseq > (SELECT jseq FROM verified_since) AND jseq < 9223372036854775807))
UNION ALL
-- C7: nothing counts as published without an acknowledged publish.
SELECT 'C7', 'outbox:' || outbox_id, jsonb_build_object('what', 'published without a publish', 'attempts', attempts)
FROM outbox WHERE state = 'published' AND (attempts < 1 OR published_us IS NULL)
UNION ALL
-- C8: actions are numbered without gaps, and a compensation is one of them.
SELECT 'C8', 'recovery_run:' || recovery_trace_id,
    jsonb_build_object('what', 'gaps in the sequence', 'actions', count(*), 'last', max(sequence))
FROM recovery_action AS action
WHERE recovery_trace_id IN (
    SELECT recovery_trace_id FROM recovery_action
    WHERE jseq > (SELECT jseq FROM verified_since) AND jseq < 9223372036854775807
) AND NOT EXISTS (
    SELECT FROM recovery_run AS older
    WHERE older.recovery_trace_id = action.recovery_trace_id
      AND older.begun_jseq <= (SELECT archived_jseq FROM verified_since)
)
GROUP BY recovery_trace_id HAVING count(*) <> max(sequence) OR min(sequence) <> 1
UNION ALL
SELECT 'C8', 'recovery_run:' || coalesce(action.recovery_trace_id, comp.recovery_trace_id),
    jsonb_build_object('what', 'a compensation and its action differ', 'action_id', action.action_id,
                       'compensation_id', comp.compensation_id)
FROM (
    SELECT * FROM recovery_action
    WHERE action_type = 'compensation'
      AND jseq > (SELECT jseq FROM verified_since) AND jseq < 9223372036854775807
) AS action
FULL JOIN (
    SELECT * FROM compensation WHERE jseq > (SELECT jseq FROM verified_since) AND jseq < 9223372036854775807
) AS comp
    ON comp.action_id = action.action_id
WHERE (action.recovery_trace_id, action.sequence, action.target_ref, action.outcome)
      IS DISTINCT FROM (comp.recovery_trace_id, comp.sequence, comp.target_ref, comp.outcome)
UNION ALL
SELECT 'C8', 'recovery_run:' || action.recovery_trace_id,
    jsonb_build_object('what', 'an action of no run', 'action_id', action.action_id)
FROM recovery_action AS action
WHERE jseq > (SELECT jseq FROM verified_since) AND jseq < 9223372036854775807
  AND NOT EXISTS (SELECT FROM recovery_run AS run WHERE run.recovery_trace_id = action.recovery_trace_id)
UNION ALL
-- U1: the chain is gapless and ends where the journal says. The hashes themselves are the verifier's work.
SELECT 'U1', 'audit_log:' || audit_id,
    jsonb_build_object('what', 'it does not follow the entry before it', 'seq', seq, 'after', before_seq)
FROM (
    SELECT audit_id, seq, prev_hash, lag(seq) OVER chain AS before_seq, lag(hash) OVER chain AS before_hash
    FROM audit_log WHERE shard = 0 AND seq > (SELECT audit_seq FROM verified_since) AND seq < 9223372036854775807
    WINDOW chain AS (PARTITION BY shard ORDER BY seq)
) AS entry CROSS JOIN verified_since AS mark
WHERE (seq, entry.prev_hash)
      IS DISTINCT FROM (coalesce(before_seq, mark.audit_seq) + 1, coalesce(before_hash, mark.audit_hash))
UNION ALL
SELECT 'U1', 'audit_log', jsonb_build_object('what', 'the chain does not end where the journal says',
                                             'journal', head.audit_seq, 'chain', last.seq)
FROM journal_head AS head LEFT JOIN LATERAL (
    SELECT seq, hash FROM audit_log WHERE audit_log.shard = head.shard ORDER BY seq DESC LIMIT 1
) AS last ON true
LEFT JOIN archived AS before ON before.audit_seq = head.audit_seq  -- all of it is archived
WHERE (head.audit_seq, head.hash) IS DISTINCT FROM
      (coalesce(last.seq, before.audit_seq, 0), coalesce(last.hash, before.audit_hash, repeat('0', 64)))
UNION ALL
-- U2: no change of state without its entry, a birth included.
SELECT 'U2', ref, jsonb_build_object('what', 'its state is not the one last audited', 'state', state, 'audited', audited)
FROM last_audited
WHERE live AND audited IS DISTINCT FROM state
  AND (audited IS NOT NULL OR (SELECT archived_jseq FROM verified_since) = 0)
UNION ALL
SELECT 'U2', ref, jsonb_build_object('what', 'its state is not the one last audited', 'state', state, 'audited', audited)
FROM audited_since JOIN last_audited
    ON kind = split_part(target_ref, ':', 1) AND id = substr(target_ref, strpos(target_ref, ':') + 1)
WHERE (SELECT jseq FROM verified_since) > 0 AND NOT live AND audited IS DISTINCT FROM state
UNION ALL
SELECT 'U2', ref, jsonb_build_object('what', 'its state is not the one last audited', 'state', state, 'audited', audited)
FROM last_audited
WHERE (SELECT jseq FROM verified_since) = 0 AND NOT live AND audited IS DISTINCT FROM state
UNION ALL
-- U3: whoever replays the audit comes from state to state. Unused access and a retired node may come to be anew.
SELECT 'U3', target_ref, jsonb_build_object('what', 'an entry does not begin in the state in which the one before it ended',
                                            'seq', seq, 'before', was, 'from', from_state)
FROM (
    SELECT target_ref, seq, from_state, lag(to_state) OVER (PARTITION BY target_ref ORDER BY seq) AS was
    FROM audit_log
    WHERE shard = 0 AND seq > (SELECT audit_seq FROM verified_since) AND seq < 9223372036854775807
      AND to_state IS NOT NULL
) AS entry
WHERE was <> from_state OR (from_state IS NULL AND was NOT IN ('idle', 'retired'))
UNION ALL
-- U4: each entry says who and under which epoch, and that of a change in which trace.
SELECT 'U4', 'audit_log:' || audit_id, jsonb_build_object('what', 'it does not say who, in which trace or epoch', 'seq', seq)
FROM audit_log
WHERE shard = 0 AND seq > (SELECT audit_seq FROM verified_since) AND seq < 9223372036854775807
  AND (actor = '' OR epoch < 1 OR (to_state IS NOT NULL AND trace_id !~ '^[0-9a-f]{32}$'));

-- What is due is done, or a case says why not: a timer that a running runtime has let lie for minutes was lost (A3).
CREATE OR REPLACE VIEW public_v1.invariant_violation AS
SELECT name, target_ref, details FROM recorded_violation
UNION ALL
SELECT 'A3', late.ref, jsonb_build_object('what', 'a timer is overdue and no case says why', 'due_us', late.due_us)
FROM entity_state AS late
CROSS JOIN (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 300000000 AS latest_us
) AS bound
WHERE late.live AND late.due_us < bound.latest_us
  AND EXISTS (  -- a runtime has been there to do it for as long
      SELECT FROM lease JOIN runtime_epoch ON runtime_epoch.epoch = lease.epoch
      WHERE lease.renewed_at > clock_timestamp() - interval '10 s' AND runtime_epoch.started_us < bound.latest_us
  )
  AND NOT EXISTS (SELECT FROM ops_case WHERE ops_case.entity = late.ref AND ops_case.state <> 'resolved');
