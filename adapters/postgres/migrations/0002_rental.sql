-- The rental domain's tables: accounts, nodes, allocations, assignments, debts, meters, ledger.

CREATE TABLE accounts (
    account_id text PRIMARY KEY,
    state      text NOT NULL,
    version    bigint NOT NULL,
    due_us     bigint,
    body       jsonb NOT NULL
);
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON accounts EXECUTE FUNCTION amends_guard();

CREATE TABLE nodes (
    node_id text PRIMARY KEY,
    state   text NOT NULL,
    version bigint NOT NULL,
    due_us  bigint,
    body    jsonb NOT NULL
);
CREATE INDEX nodes_live ON nodes (node_id) WHERE state <> 'retired';
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON nodes EXECUTE FUNCTION amends_guard();

CREATE TABLE allocations (
    allocation_id text PRIMARY KEY,
    state         text NOT NULL,
    version       bigint NOT NULL,
    due_us        bigint,
    body          jsonb NOT NULL
);
CREATE INDEX allocations_live ON allocations (allocation_id)
    WHERE state NOT IN ('released', 'failed') OR body ? 'owing' OR body ? 'cases' OR body ? 'runs';
CREATE INDEX allocations_account ON allocations ((body ->> 'account_id'));
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON allocations EXECUTE FUNCTION amends_guard();

-- The tie between an allocation and its node; one live allocation a node (A1).
CREATE TABLE assignments (
    allocation_id text PRIMARY KEY,
    node_id       text NOT NULL,
    state         text NOT NULL CHECK (state IN ('reserved', 'active', 'ended')),
    since_us      bigint NOT NULL,
    ended_us      bigint,
    jseq          bigint NOT NULL
);
CREATE UNIQUE INDEX assignments_live ON assignments (node_id) WHERE state <> 'ended';
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON assignments EXECUTE FUNCTION amends_guard();

CREATE TABLE debts (
    debt_id       text PRIMARY KEY,
    node_id       text NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('user', 'mount')),
    target_ref    text NOT NULL,
    allocation_id text,
    attachment_id text,
    attempts      integer NOT NULL,
    since_us      bigint NOT NULL,
    settled_us    bigint,
    jseq          bigint NOT NULL
);
CREATE UNIQUE INDEX debts_open ON debts (target_ref) WHERE settled_us IS NULL;
CREATE INDEX debts_node ON debts (node_id) WHERE settled_us IS NULL;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON debts EXECUTE FUNCTION amends_guard();

CREATE TABLE meters (
    meter_id              text PRIMARY KEY,
    allocation_id         text NOT NULL UNIQUE,
    account_id            text NOT NULL,
    state                 text NOT NULL CHECK (state IN ('accruing', 'stopped')),
    rate_uminor_per_hour  bigint NOT NULL CHECK (rate_uminor_per_hour >= 0),
    policy_version        text NOT NULL,
    policy_sha256         text NOT NULL,
    started_us            bigint NOT NULL,
    stopped_us            bigint CHECK (stopped_us >= started_us),
    stop_cause            text CHECK (stop_cause IN ('release', 'force_release', 'node_offline', 'node_rebooted')),
    posted_through_us     bigint NOT NULL,
    jseq                  bigint NOT NULL,
    CHECK ((state = 'stopped') = (stopped_us IS NOT NULL AND stop_cause IS NOT NULL))
);
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON meters EXECUTE FUNCTION amends_guard();

CREATE TABLE ledger_entries (
    entry_id        text PRIMARY KEY,
    account_id      text NOT NULL,
    meter_id        text,
    entry_type      text NOT NULL CHECK (entry_type IN ('debit', 'credit', 'topup', 'refund')),
    amount_minor    bigint NOT NULL CHECK (amount_minor >= 0),
    currency        text NOT NULL,
    idempotency_key text NOT NULL UNIQUE,
    payload_hash    text NOT NULL,
    rule_id         text,
    window_start_us bigint,
    created_us      bigint NOT NULL,
    jseq            bigint NOT NULL
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries EXECUTE FUNCTION amends_append_only();

-- When each node was last heard, in bulk, beside its state: the money of a lost node hangs on it.
CREATE TABLE node_seen (
    node_id           text PRIMARY KEY,
    boot_id           text NOT NULL,
    last_heartbeat_us bigint NOT NULL,
    jseq              bigint NOT NULL
);
