-- The runtime's own tables: journal head, lease, actors, messages, steps, outbox, records, audit.

CREATE TABLE journal_head (
    id        integer PRIMARY KEY CHECK (id = 1),
    epoch     bigint NOT NULL,
    seq       bigint NOT NULL,
    audit_seq bigint NOT NULL,
    hash      text   NOT NULL,
    at_us     bigint NOT NULL
);
INSERT INTO journal_head VALUES (1, 0, 0, 0, repeat('0', 64), 0);

CREATE TABLE runtime_epoch (
    epoch       bigint PRIMARY KEY,
    instance_id text   NOT NULL,
    version     text   NOT NULL,
    started_us  bigint NOT NULL
);

CREATE TABLE document (
    sha256    text PRIMARY KEY,
    kind      text  NOT NULL,
    body      jsonb NOT NULL,
    stored_us bigint NOT NULL
);

-- Nobody but the runtime's own sessions changes state: its role, and the epoch that holds the journal.
CREATE FUNCTION amends_guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owner text;
BEGIN
    SELECT tableowner INTO owner FROM pg_tables WHERE schemaname = TG_TABLE_SCHEMA AND tablename = TG_TABLE_NAME;
    IF session_user <> owner
       OR current_setting('amends.epoch', true) IS DISTINCT FROM (SELECT epoch::text FROM journal_head) THEN
        RAISE EXCEPTION '% on % is refused: state is changed through the API only', TG_OP, TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Use the amends command line or the ops subjects; see docs/runbooks.';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION amends_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: its rows are never changed or deleted', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege', HINT = 'Corrections are new entries.';
END $$;

CREATE TABLE actors (
    kind    text   NOT NULL,
    id      text   NOT NULL,
    state   text   NOT NULL,
    version bigint NOT NULL,
    due_us  bigint,
    body    jsonb  NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON actors EXECUTE FUNCTION amends_guard();

CREATE TABLE notifications (
    notification_id text   PRIMARY KEY,
    state           text   NOT NULL,
    version         bigint NOT NULL,
    due_us          bigint,
    body            jsonb  NOT NULL
);
CREATE UNIQUE INDEX notifications_dedupe ON notifications ((body ->> 'dedupe_key'));
CREATE INDEX notifications_live ON notifications (notification_id) WHERE state IN ('pending', 'parked');
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON notifications EXECUTE FUNCTION amends_guard();

CREATE TABLE message (
    message_id text   PRIMARY KEY,
    to_kind    text   NOT NULL,
    to_id      text   NOT NULL,
    type       text   NOT NULL,
    body       text   NOT NULL,
    trace_id   text   NOT NULL,
    span_id    text   NOT NULL,
    actor      text   NOT NULL,
    request_id text   NOT NULL,
    sent_us    bigint NOT NULL,
    jseq       bigint NOT NULL
);

CREATE TABLE message_quarantine (
    message_id text   PRIMARY KEY,
    entity     text   NOT NULL,
    type       text   NOT NULL,
    body       text   NOT NULL,
    error      text   NOT NULL,
    at_us      bigint NOT NULL,
    jseq       bigint NOT NULL
);

-- A handled command: its span for ever, and for 7 days its kept reply (then `key` is null, and free for another).
CREATE TABLE command (
    caller         text   NOT NULL,
    key            text,
    body_hash      text   NOT NULL,
    subject        text   NOT NULL,
    request_id     text   NOT NULL,
    trace_id       text   NOT NULL,
    span_id        text   NOT NULL,
    parent_span_id text   NOT NULL,
    entity         text   NOT NULL,
    http           integer NOT NULL,
    error_code     text   NOT NULL,
    reply          text   NOT NULL,
    received_us    bigint NOT NULL,
    replied_us     bigint NOT NULL,
    epoch          bigint NOT NULL,
    jseq           bigint NOT NULL,
    PRIMARY KEY (trace_id, span_id),
    CONSTRAINT command_key UNIQUE (caller, key)
);
CREATE INDEX command_jseq ON command (jseq);
CREATE INDEX command_kept ON command (received_us) WHERE key IS NOT NULL;

CREATE TABLE step (
    step_id         text    PRIMARY KEY,
    entity          text    NOT NULL,
    name            text    NOT NULL,
    attempt         integer NOT NULL,
    state           text    NOT NULL CHECK (state IN ('intended', 'done', 'failed', 'unknown')),
    idempotency_key text    NOT NULL,
    target          text    NOT NULL,
    args            text    NOT NULL,
    undo            text    NOT NULL,
    trace_id        text    NOT NULL,
    parent_span_id  text    NOT NULL,
    started_us      bigint  NOT NULL,
    ended_us        bigint,
    next_attempt_us bigint,
    code            text    NOT NULL,
    message         text    NOT NULL,
    epoch           bigint  NOT NULL,
    jseq            bigint  NOT NULL
);
CREATE INDEX step_intended ON step (step_id) WHERE state = 'intended';
CREATE INDEX step_entity ON step (entity);
CREATE INDEX step_jseq ON step (jseq);
CREATE INDEX step_trace ON step (trace_id);
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON step EXECUTE FUNCTION amends_guard();

CREATE TABLE outbox (
    outbox_id    text    PRIMARY KEY,
    entity       text    NOT NULL,
    stream       text    NOT NULL,
    subject      text    NOT NULL,
    payload      text    NOT NULL,
    trace_id     text    NOT NULL,
    span_id      text    NOT NULL,
    created_us   bigint  NOT NULL,
    state        text    NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'published', 'parked', 'skipped')),
    attempts     integer NOT NULL DEFAULT 0,
    published_us bigint,
    jseq         bigint  NOT NULL
);
CREATE INDEX outbox_waiting ON outbox (jseq, outbox_id) WHERE state = 'pending';
CREATE INDEX outbox_parked ON outbox (entity) WHERE state = 'parked';
CREATE INDEX outbox_entity ON outbox (entity);
CREATE INDEX outbox_created ON outbox (created_us, outbox_id);
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON outbox EXECUTE FUNCTION amends_guard();

CREATE TABLE failure (
    failure_id        text    PRIMARY KEY,
    trace_id          text    NOT NULL,
    span_id           text    NOT NULL,
    at_us             bigint  NOT NULL,
    failure_type      text    NOT NULL CHECK (failure_type IN ('error', 'timeout', 'violation', 'resource', 'policy')),
    severity          text    NOT NULL CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    ref               text    NOT NULL,
    message           text    NOT NULL,
    code              text    NOT NULL,
    component         text    NOT NULL,
    cause_ref         text    NOT NULL,
    propagation_hop   integer NOT NULL CHECK (propagation_hop >= 0),
    recovery_trace_id text    NOT NULL,
    epoch             bigint  NOT NULL,
    jseq              bigint  NOT NULL
);
CREATE INDEX failure_span ON failure (span_id);
CREATE INDEX failure_jseq ON failure (jseq);
CREATE INDEX failure_recovery ON failure (recovery_trace_id);

CREATE TABLE recovery_run (
    recovery_id       text   PRIMARY KEY,
    recovery_trace_id text   NOT NULL UNIQUE,
    matrix_row        text   NOT NULL,
    matrix_version    text   NOT NULL,
    matrix_sha256     text   NOT NULL,
    policy_sha256     text   NOT NULL,
    started_us        bigint NOT NULL,
    trigger_type      text   NOT NULL CHECK (trigger_type IN ('failure', 'degradation', 'timeout', 'policy')),
    trigger_ref       text   NOT NULL,
    original_trace_id text   NOT NULL,
    original_span_id  text   NOT NULL,
    entity            text   NOT NULL,
    name              text   NOT NULL,
    epoch             bigint NOT NULL,
    final_outcome     text   CHECK (final_outcome IN ('recovered', 'degraded', 'failed')),
    ended_us          bigint,
    net               text   NOT NULL DEFAULT '{}',
    jseq              bigint NOT NULL
);
CREATE INDEX recovery_run_entity ON recovery_run (entity);
CREATE INDEX recovery_run_started ON recovery_run (started_us);
CREATE INDEX recovery_run_original ON recovery_run (original_trace_id);
CREATE INDEX recovery_run_jseq ON recovery_run (jseq);
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON recovery_run EXECUTE FUNCTION amends_guard();

CREATE TABLE recovery_action (
    action_id         text    PRIMARY KEY,
    recovery_trace_id text    NOT NULL,
    sequence          integer NOT NULL,
    at_us             bigint  NOT NULL,
    action_type       text    NOT NULL
        CHECK (action_type IN ('retry', 'fallback', 'compensation', 'self_heal', 'escalate')),
    what              text    NOT NULL,
    target_ref        text    NOT NULL,
    outcome           text    NOT NULL CHECK (outcome IN ('success', 'failure', 'partial')),
    duration_ms       bigint  CHECK (duration_ms >= 0),
    metadata          text    NOT NULL,
    operator          text    NOT NULL,
    epoch             bigint  NOT NULL,
    jseq              bigint  NOT NULL,
    UNIQUE (recovery_trace_id, sequence)
);
CREATE INDEX recovery_action_jseq ON recovery_action (jseq);

CREATE TABLE compensation (
    compensation_id         text    PRIMARY KEY,
    action_id               text    NOT NULL UNIQUE,
    recovery_trace_id       text    NOT NULL,
    sequence                integer NOT NULL,
    at_us                   bigint  NOT NULL,
    compensated_action_ref  text    NOT NULL CHECK (compensated_action_ref ~ '^[0-9a-f]{32}:[0-9a-f]{16}$'),
    compensated_action_type text    NOT NULL
        CHECK (compensated_action_type IN ('decision', 'side_effect', 'state_change', 'external_call')),
    compensation_type       text    NOT NULL
        CHECK (compensation_type IN ('rollback', 'cancel', 'reverse', 'compensate')),
    target_ref              text    NOT NULL,
    outcome                 text    NOT NULL CHECK (outcome IN ('success', 'failure', 'partial')),
    duration_ms             bigint  CHECK (duration_ms >= 0),
    metadata                text    NOT NULL,
    matrix_row              text    NOT NULL,
    comp_key                text    NOT NULL UNIQUE,
    jseq                    bigint  NOT NULL,
    UNIQUE (recovery_trace_id, sequence)
);
CREATE INDEX compensation_target ON compensation (target_ref);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON compensation EXECUTE FUNCTION amends_append_only();

CREATE TABLE ops_case (
    case_id           text   PRIMARY KEY,
    kind              text   NOT NULL,
    target_ref        text   NOT NULL,
    entity            text   NOT NULL,
    state             text   NOT NULL CHECK (state IN ('open', 'retrying', 'resolved')),
    opened_us         bigint NOT NULL,
    resolved_us       bigint,
    recovery_trace_id text   NOT NULL,
    commands          text   NOT NULL,
    evidence          text   NOT NULL,
    jseq              bigint NOT NULL
);
CREATE INDEX ops_case_entity ON ops_case (entity);
CREATE INDEX ops_case_target ON ops_case (target_ref);
CREATE INDEX ops_case_recovery ON ops_case (recovery_trace_id);
CREATE UNIQUE INDEX ops_case_open ON ops_case (target_ref, kind) WHERE state <> 'resolved';
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON ops_case EXECUTE FUNCTION amends_guard();

CREATE TABLE audit_log (
    audit_id          text   PRIMARY KEY,
    seq               bigint NOT NULL UNIQUE,
    at_us             bigint NOT NULL,
    actor             text   NOT NULL,
    action            text   NOT NULL,
    target_ref        text   NOT NULL,
    from_state        text,
    to_state          text,
    reason            text   NOT NULL,
    request_id        text   NOT NULL,
    trace_id          text   NOT NULL,
    recovery_trace_id text   NOT NULL,
    epoch             bigint NOT NULL,
    details           json   NOT NULL,
    prev_hash         text   NOT NULL,
    hash              text   NOT NULL,
    jseq              bigint NOT NULL
);
CREATE INDEX audit_log_target ON audit_log (target_ref);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log EXECUTE FUNCTION amends_append_only();

-- How far a follower of the journal has come (the span exporter).
CREATE TABLE journal_cursor (
    name text   PRIMARY KEY,
    jseq bigint NOT NULL
);
