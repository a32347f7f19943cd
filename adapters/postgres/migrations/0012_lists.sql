-- A caller that is not trusted with every account does not continue its trace here: its span is a link (traces.md).
-- And every filter of `qry.<entity>.list` has an index (adapters/postgres/filters.py says which).

ALTER TABLE command ADD COLUMN link text NOT NULL DEFAULT '';

CREATE OR REPLACE VIEW span_command AS
SELECT
    command.trace_id,
    command.span_id,
    nullif(parent_span_id, '') AS parent_span_id,
    subject AS name,
    'SERVER' AS kind,
    received_us AS start_us,
    greatest(received_us, replied_us) AS end_us,
    CASE WHEN http >= 500 OR failures.events IS NOT NULL THEN 'ERROR' ELSE 'UNSET' END AS status,
    jsonb_strip_nulls(jsonb_build_object(
        'messaging.system', 'nats', 'messaging.destination.name', subject,
        'messaging.operation.name', 'process', 'messaging.operation.type', 'process',
        'amends.request_id', nullif(request_id, ''), 'amends.entity', nullif(entity, ''), 'amends.reply_code', http,
        'amends.error_code', nullif(error_code, ''),
        'error.type', CASE WHEN http >= 500 THEN coalesce(nullif(error_code, ''), http::text) END,
        'amends.operator', CASE WHEN starts_with(caller, 'operator:') THEN substr(caller, 10) END
    )) || coalesce(failures.attributes, '{}') AS attributes,
    coalesce(failures.events, '[]') AS events,
    CASE WHEN command.link <> '' THEN jsonb_build_array(jsonb_build_object(
        'trace_id', split_part(command.link, ':', 1), 'span_id', split_part(command.link, ':', 2), 'remote', true))
        ELSE '[]' END AS links,
    command.jseq,
    command.epoch,
    coalesce(failures.message, '') AS status_message
FROM command
LEFT JOIN LATERAL (
    SELECT
        jsonb_agg(jsonb_build_object('name', 'failure', 'time_us', at_us, 'attributes', attributes) ORDER BY failure_id)
            AS events,
        (array_agg(attributes ORDER BY failure_id))[1] AS attributes,
        (array_agg(message ORDER BY failure_id))[1] AS message
    FROM span_failure WHERE span_failure.span_id = command.span_id AND span_failure.jseq = command.jseq
) AS failures ON true;

-- One span per try that has ended. In a run's trace the real work hangs below the action that covers it in time; work

-- Refusals of keys that were forgotten: nothing is derived from them but a span of long ago (`forget_refusals`).
DELETE FROM command
WHERE key IS NULL AND error_code IN ('already_exists', 'idempotency_mismatch', 'window_after_stop', 'window_not_due')
  AND NOT EXISTS (SELECT FROM failure WHERE failure.span_id = command.span_id);

CREATE INDEX accounts_customer ON accounts ((body ->> 'stripe_customer_id'))
    WHERE (body ->> 'stripe_customer_id') IS NOT NULL;
CREATE INDEX nodes_state ON nodes (state, node_id);

DROP INDEX allocations_account;
CREATE INDEX allocations_account ON allocations ((body ->> 'account_id'), allocation_id);
CREATE INDEX allocations_account_state ON allocations ((body ->> 'account_id'), state, allocation_id);
CREATE INDEX allocations_ended ON allocations (state, allocation_id) WHERE state IN ('released', 'failed');
CREATE INDEX allocations_node ON allocations ((body ->> 'node_id'), allocation_id) WHERE (body ->> 'node_id') IS NOT NULL;
CREATE INDEX allocations_external ON allocations ((body ->> 'external_ref'), allocation_id)
    WHERE (body ->> 'external_ref') IS NOT NULL;
CREATE INDEX allocations_failure ON allocations ((body ->> 'failure_code'), allocation_id)
    WHERE (body ->> 'failure_code') IS NOT NULL;
CREATE INDEX allocations_owing ON allocations (allocation_id)
    WHERE coalesce((body ->> 'cleanup_pending')::boolean, false);

CREATE INDEX debts_owed ON debts (debt_id) WHERE settled_us IS NULL;
CREATE INDEX meters_account ON meters (account_id, meter_id);
CREATE INDEX meters_accruing ON meters (account_id, meter_id) WHERE state = 'accruing';
CREATE INDEX meters_all_accruing ON meters (meter_id) WHERE state = 'accruing';
CREATE INDEX ledger_entries_type ON ledger_entries (account_id, entry_type, entry_id);
CREATE INDEX ledger_entries_meter ON ledger_entries (meter_id, entry_id) WHERE meter_id IS NOT NULL;
CREATE INDEX ledger_entries_time ON ledger_entries (account_id, created_us, entry_id);

CREATE INDEX notifications_account ON notifications ((body ->> 'account_id'), notification_id, (body ->> 'kind'));
CREATE INDEX notifications_entity ON notifications ((body ->> 'entity'));
CREATE INDEX notifications_other ON notifications (state, notification_id)
    WHERE state NOT IN ('pending', 'parked', 'sent');
CREATE INDEX outbox_set_aside ON outbox (state, outbox_id) WHERE state IN ('parked', 'skipped');
CREATE INDEX outbox_pending ON outbox (outbox_id) WHERE state = 'pending';
CREATE INDEX step_not_done ON step (state, step_id) WHERE state IN ('failed', 'unknown');
CREATE INDEX failure_code ON failure (code, failure_id);
CREATE INDEX recovery_run_row ON recovery_run (matrix_row, recovery_id);
CREATE INDEX recovery_run_row_outcome ON recovery_run (matrix_row, final_outcome, recovery_id);
CREATE INDEX recovery_run_outcome ON recovery_run (final_outcome, recovery_id);
CREATE INDEX compensation_row ON compensation (matrix_row, compensation_id);
CREATE INDEX ops_case_kind ON ops_case (kind, case_id);
CREATE INDEX ops_case_unresolved ON ops_case (state, case_id) WHERE state <> 'resolved';

CREATE INDEX audit_log_actor ON audit_log (actor, audit_id) WHERE actor <> 'runtime';
CREATE INDEX audit_log_action ON audit_log (action, audit_id);
CREATE INDEX audit_log_request ON audit_log (nullif(request_id, '')) WHERE nullif(request_id, '') IS NOT NULL;
CREATE INDEX audit_log_recovery ON audit_log (nullif(recovery_trace_id, ''))
    WHERE nullif(recovery_trace_id, '') IS NOT NULL;
CREATE INDEX audit_log_republish ON audit_log ((details ->> 'request_id')) WHERE action LIKE 'outbox.republish.%';
