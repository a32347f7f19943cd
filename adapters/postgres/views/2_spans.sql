-- Spans, derived from the committed records (traces.md): the one implementation, nothing is stored for them.
-- A span depends on nothing but its records, so every export of it is the same, byte for byte. Each branch is
-- ordered by jseq, which lets a follower read `jseq > … ORDER BY jseq LIMIT …` by merging indexes; for the same reason
-- what a branch looks up beside its own table is looked up row by row (LIMIT and OFFSET keep it from becoming a join).

CREATE OR REPLACE VIEW span_failure AS
SELECT
    failure_id, trace_id, span_id, at_us, code, message, component, ref, epoch, jseq,
    jsonb_strip_nulls(jsonb_build_object(
        'failure.failure_id', failure_id, 'failure.trace_id', nullif(trace_id, ''),
        'failure.span_id', nullif(span_id, ''), 'failure.timestamp', amends_time(at_us),
        'failure.failure_type', failure_type, 'failure.severity', severity, 'failure.ref', ref,
        'failure.message', message, 'failure.code', code, 'failure.component', component,
        'failure.cause_ref', nullif(cause_ref, ''), 'failure.propagation_hop', propagation_hop,
        'failure.recovery_trace_id', nullif(recovery_trace_id, '')
    )) AS attributes
FROM failure;

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
-- whose action was never recorded, or which outlasted it, hangs below the run's root.
CREATE OR REPLACE VIEW span_step AS
SELECT
    step.step_id,
    step.trace_id,
    amends_span_id('step', step.step_id) AS span_id,
    CASE
        WHEN run.recovery_id IS NULL OR EXISTS (
            SELECT FROM recovery_action AS action
            WHERE action.recovery_trace_id = step.trace_id AND action.jseq <= step.jseq
              AND amends_span_id('action', action.action_id) = step.parent_span_id
              AND action.started_us <= least(step.started_us, step.ended_us) AND action.at_us >= step.ended_us
        ) OR EXISTS (
            SELECT FROM step AS above
            WHERE above.trace_id = step.trace_id AND above.month >= 1 AND above.jseq <= step.jseq
              AND amends_span_id('step', above.step_id) = step.parent_span_id
        ) THEN nullif(step.parent_span_id, '')
        ELSE amends_span_id('run', run.recovery_id)
    END AS parent_span_id,
    step.name,
    'CLIENT' AS kind,
    least(step.started_us, step.ended_us) AS start_us,
    step.ended_us AS end_us,
    CASE WHEN step.state <> 'done' OR failures.events IS NOT NULL THEN 'ERROR' ELSE 'UNSET' END AS status,
    jsonb_strip_nulls(jsonb_build_object(
        'amends.entity', step.entity, 'amends.step', step.name, 'amends.attempt', step.attempt,
        'amends.step_id', step.step_id, 'amends.outcome', step.state, 'amends.target', step.target,
        'amends.idempotency_key', step.idempotency_key,
        'error.type', CASE WHEN step.state <> 'done' THEN coalesce(nullif(step.code, ''), step.state) END,
        'rpc.system.name', CASE WHEN starts_with(step.name, 'ssh.') THEN 'ssh' END,
        'rpc.method', CASE WHEN starts_with(step.name, 'ssh.') THEN substr(step.name, 5) END,
        'server.address', CASE WHEN starts_with(step.name, 'ssh.') THEN nullif(step.server_address, '') END,
        'server.port', CASE WHEN starts_with(step.name, 'ssh.') THEN nullif(step.server_port, 0) END,
        'db.system.name', CASE step.name WHEN 'activation' THEN 'postgresql' END,
        'db.namespace', CASE step.name WHEN 'activation' THEN current_database() END,
        'db.operation.name', CASE step.name WHEN 'activation' THEN 'COMMIT' END,
        'db.response.status_code',
            CASE WHEN step.name = 'activation' AND step.code ~ '^[0-9A-Z]{5}$' THEN step.code END,
        'messaging.system', CASE WHEN publishing.operation IS NOT NULL THEN 'nats' END,
        'messaging.operation.name', publishing.operation,
        'messaging.operation.type', CASE WHEN publishing.operation IN ('publish', 'republish') THEN 'send' END,
        'messaging.destination.name', publishing.destination,
        'messaging.message.id', CASE WHEN step.name LIKE '%.publish' THEN step.idempotency_key END
    )) || coalesce(failures.attributes, '{}') AS attributes,
    CASE
        WHEN failures.events IS NOT NULL THEN failures.events
        WHEN step.state = 'done' THEN '[]'
        ELSE jsonb_build_array(jsonb_build_object('name', 'failure', 'time_us', step.ended_us, 'attributes',
            jsonb_build_object('failure.code', step.code, 'failure.message', step.message,
                               'failure.component', step.name, 'failure.ref', 'step:' || step.step_id)))
    END AS events,
    jsonb '[]' AS links,
    step.jseq,
    step.epoch,
    coalesce(failures.message, step.message) AS status_message
FROM step
LEFT JOIN LATERAL (
    SELECT recovery_id FROM recovery_run WHERE recovery_trace_id = step.trace_id LIMIT 1
) AS run ON true
LEFT JOIN LATERAL (
    SELECT
        CASE WHEN step.name LIKE '%.publish' OR starts_with(step.name, 'agent.') THEN 'publish'
             WHEN step.name = 'outbox.republish' THEN 'republish' WHEN step.name = 'streams.create' THEN 'create' END
            AS operation,
        CASE WHEN step.name = 'notification.publish' THEN step.args::jsonb ->> 'subject'
             WHEN step.name = 'outbox.publish' THEN (SELECT subject FROM outbox WHERE outbox_id = step.idempotency_key)
             WHEN starts_with(step.name, 'agent.') THEN format('amends.v1.task.%s', split_part(step.target, ':', 2))
             WHEN step.name = 'outbox.republish' THEN substr(step.target, 8) END AS destination
    OFFSET 0
) AS publishing ON true
LEFT JOIN LATERAL (
    SELECT
        jsonb_agg(jsonb_build_object('name', 'failure', 'time_us', at_us, 'attributes', attributes) ORDER BY failure_id)
            AS events,
        (array_agg(attributes ORDER BY failure_id))[1] AS attributes,
        (array_agg(message ORDER BY failure_id))[1] AS message
    FROM span_failure
    WHERE span_failure.span_id = amends_span_id('step', step.step_id) AND span_failure.jseq = step.jseq
) AS failures ON true
WHERE step.month >= 1;

-- Failures that no span of their own turn carries: under their own span id if nothing else has it, else beneath it.
CREATE OR REPLACE VIEW span_lone_failure AS
SELECT
    failure_id,
    trace_id,
    CASE WHEN taken THEN amends_span_id('failure', failure_id) ELSE span_id END AS span_id,
    CASE WHEN taken AND trace_id <> '' THEN nullif(span_id, '') END AS parent_span_id,
    coalesce(nullif(component, ''), code) AS name,
    'INTERNAL' AS kind,
    at_us AS start_us,
    at_us AS end_us,
    'ERROR' AS status,
    attributes || jsonb_build_object('error.type', code) AS attributes,
    jsonb_build_array(jsonb_build_object('name', 'failure', 'time_us', at_us, 'attributes', attributes)) AS events,
    jsonb '[]' AS links,
    jseq,
    epoch,
    message AS status_message
FROM (
    SELECT
        lone.*,
        lone.trace_id = '' OR lone.span_id = ''
        OR EXISTS (SELECT FROM command WHERE command.trace_id = lone.trace_id AND command.span_id = lone.span_id)
        OR EXISTS (SELECT FROM step WHERE step.trace_id = lone.trace_id
                   AND amends_span_id('step', step.step_id) = lone.span_id)
        OR EXISTS (SELECT FROM recovery_action AS action WHERE action.recovery_trace_id = lone.trace_id
                   AND amends_span_id('action', action.action_id) = lone.span_id)
        OR EXISTS (SELECT FROM recovery_run AS run WHERE run.recovery_trace_id = lone.trace_id
                   AND amends_span_id('run', run.recovery_id) = lone.span_id)
        OR EXISTS (SELECT FROM failure AS other WHERE other.span_id = lone.span_id
                   AND (other.jseq, other.failure_id) < (lone.jseq, lone.failure_id)) AS taken
    FROM span_failure AS lone
    WHERE NOT EXISTS (SELECT FROM command WHERE command.jseq = lone.jseq AND command.span_id = lone.span_id OFFSET 0)
      AND NOT EXISTS (SELECT FROM step WHERE step.jseq = lone.jseq AND step.month >= 1
                      AND amends_span_id('step', step.step_id) = lone.span_id OFFSET 0)
) AS lone;

-- `root_us`: a run that records the very try that failed begins to be drawn where that try began.
CREATE OR REPLACE VIEW span_run AS
SELECT
    recovery_id, recovery_trace_id, matrix_row, matrix_version, matrix_sha256, policy_sha256, started_us, trigger_type,
    trigger_ref, original_trace_id, original_span_id, entity, name, epoch, final_outcome, ended_us, net, jseq,
    begun_jseq, ended_epoch,
    jsonb_strip_nulls(jsonb_build_object(
        'recovery.recovery_id', recovery_id, 'recovery.recovery_trace_id', recovery_trace_id,
        'recovery.trigger_type', trigger_type, 'recovery.trigger_ref', nullif(trigger_ref, ''),
        'recovery.original_trace_id', nullif(original_trace_id, ''), 'recovery.matrix_row', matrix_row,
        'recovery.matrix_version', matrix_version, 'recovery.matrix_sha256', matrix_sha256, 'amends.entity', entity
    )) AS attributes,
    least(started_us, (
        SELECT min(action.started_us) FROM recovery_action AS action
        WHERE action.recovery_trace_id = recovery_run.recovery_trace_id AND action.jseq = recovery_run.begun_jseq
    )) AS root_us
FROM recovery_run;

-- An action covers its work: from the first of it to the record, to the microsecond.
CREATE OR REPLACE VIEW span_action AS
SELECT
    action.recovery_trace_id AS trace_id,
    amends_span_id('action', action.action_id) AS span_id,
    amends_span_id('run', run.recovery_id) AS parent_span_id,
    CASE WHEN comp.action_id IS NULL THEN action.action_type || ' ' || action.what ELSE action.what END AS name,
    'INTERNAL' AS kind,
    greatest(run.root_us, action.started_us) AS start_us,
    greatest(run.root_us, action.at_us) AS end_us,
    CASE action.outcome WHEN 'failure' THEN 'ERROR' ELSE 'UNSET' END AS status,
    jsonb_strip_nulls(jsonb_build_object(
        'recovery.recovery_id', run.recovery_id, 'recovery.recovery_trace_id', action.recovery_trace_id,
        'recovery.matrix_row', run.matrix_row, 'recovery.matrix_sha256', run.matrix_sha256,
        'recovery.trigger_type', run.trigger_type, 'recovery.trigger_ref', nullif(run.trigger_ref, ''),
        'recovery.original_trace_id', nullif(run.original_trace_id, ''),
        'recovery.action_id', action.action_id, 'recovery.action_type', action.action_type,
        'recovery.sequence', action.sequence, 'recovery.outcome', action.outcome,
        'recovery.target_ref', action.target_ref, 'recovery.metadata', action.metadata,
        'amends.entity', run.entity, 'amends.operator', nullif(action.operator, ''),
        'compensation.compensation_id', comp.compensation_id,
        'compensation.recovery_trace_id', comp.recovery_trace_id, 'compensation.sequence', comp.sequence,
        'compensation.timestamp', amends_time(comp.at_us),
        'compensation.compensated_action_ref', comp.compensated_action_ref,
        'compensation.compensated_action_type', comp.compensated_action_type,
        'compensation.compensation_type', comp.compensation_type, 'compensation.target_ref', comp.target_ref,
        'compensation.outcome', comp.outcome, 'compensation.duration_ms', comp.duration_ms,
        'compensation.metadata', comp.metadata
    )) AS attributes,
    jsonb '[]' AS events,
    jsonb '[]' AS links,
    action.jseq,
    action.epoch,
    '' AS status_message
FROM recovery_action AS action
LEFT JOIN LATERAL (
    SELECT * FROM span_run WHERE recovery_trace_id = action.recovery_trace_id LIMIT 1
) AS run ON true
LEFT JOIN LATERAL (SELECT * FROM compensation WHERE action_id = action.action_id LIMIT 1) AS comp ON true;

CREATE OR REPLACE VIEW span_resource AS
SELECT
    epoch,
    jsonb_build_object('service.name', 'amends') || resource || jsonb_build_object(
        'service.version', version, 'service.instance.id', instance_id, 'amends.epoch', epoch) AS resource
FROM runtime_epoch;

CREATE OR REPLACE VIEW public_v1.span AS
SELECT
    trace_id, span_id, parent_span_id, name, kind, start_us, end_us, status, attributes, events, links,
    jseq <= coalesce((SELECT cursor.jseq FROM journal_cursor AS cursor WHERE cursor.name = 'otlp'), 0) AS exported,
    jseq,
    epoch,
    (SELECT resource FROM span_resource WHERE span_resource.epoch = spans.epoch) AS resource,
    status_message
FROM (
    (SELECT * FROM span_command ORDER BY jseq)
    UNION ALL
    (SELECT
        trace_id, span_id, parent_span_id, name, kind, start_us, end_us, status, attributes, events, links, jseq, epoch,
        status_message
    FROM span_step WHERE trace_id <> '' ORDER BY jseq)
    UNION ALL
    (SELECT
        md5('step/' || step_id), span_id, NULL, name, kind, start_us, end_us, status, attributes, events, links, jseq,
        epoch, status_message
    FROM span_step WHERE trace_id = '' ORDER BY jseq)
    UNION ALL
    (SELECT
        trace_id, span_id, parent_span_id, name, kind, start_us, end_us, status, attributes, events, links, jseq, epoch,
        status_message
    FROM span_lone_failure WHERE trace_id <> '' ORDER BY jseq)
    UNION ALL
    (SELECT
        md5('failure/' || failure_id), span_id, NULL, name, kind, start_us, end_us, status, attributes, events, links,
        jseq, epoch, status_message
    FROM span_lone_failure WHERE trace_id = '' ORDER BY jseq)
    UNION ALL
    -- The root ends when the run begins, so that it is visible while the run is open; no child begins before it.
    (SELECT
        recovery_trace_id, amends_span_id('run', recovery_id), NULL, 'recovery ' || matrix_row || ' ' || name,
        'INTERNAL', root_us, started_us, 'UNSET', attributes, '[]',
        CASE WHEN original_trace_id <> '' AND original_span_id <> ''
            THEN jsonb_build_array(jsonb_build_object('trace_id', original_trace_id, 'span_id', original_span_id))
            ELSE '[]' END,
        begun_jseq, epoch, ''
    FROM span_run ORDER BY begun_jseq)
    UNION ALL
    -- The way from the failed trace to the run's, for viewers that show no back-links.
    (SELECT
        original_trace_id, amends_span_id('started', recovery_id), nullif(original_span_id, ''), 'recovery.started',
        'INTERNAL', started_us, started_us, 'UNSET', attributes, '[]',
        jsonb_build_array(jsonb_build_object(
            'trace_id', recovery_trace_id, 'span_id', amends_span_id('run', recovery_id))),
        begun_jseq, epoch, ''
    FROM span_run WHERE original_trace_id <> '' ORDER BY begun_jseq)
    UNION ALL
    (SELECT
        recovery_trace_id, amends_span_id('ended', recovery_id), amends_span_id('run', recovery_id), 'recovery.ended',
        'INTERNAL', least(started_us, ended_us), ended_us,
        CASE final_outcome WHEN 'failed' THEN 'ERROR' ELSE 'UNSET' END,
        attributes || jsonb_build_object('recovery.final_outcome', final_outcome, 'recovery.net', net), '[]', '[]',
        jseq, coalesce(ended_epoch, epoch), ''
    FROM span_run WHERE ended_us IS NOT NULL ORDER BY jseq)
    UNION ALL
    (SELECT * FROM span_action ORDER BY jseq)
) AS spans;
