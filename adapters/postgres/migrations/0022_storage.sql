-- expand: storage attachments, namespaces, and grants at their providers (R10 to R14).

CREATE TABLE namespaces (
    namespace_id text PRIMARY KEY,
    state        text NOT NULL,
    version      bigint NOT NULL,
    due_us       bigint,
    body         jsonb NOT NULL,
    live         boolean NOT NULL DEFAULT true,
    ended_state  text,
    account_id   text,
    provider_id  text
) WITH (fillfactor = 80);
CREATE INDEX namespaces_account ON namespaces (account_id, namespace_id);
CREATE INDEX namespaces_live ON namespaces (namespace_id) WHERE live;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON namespaces EXECUTE FUNCTION amends_guard();
CREATE TRIGGER born BEFORE INSERT ON namespaces EXECUTE FUNCTION amends_guard();

CREATE TABLE platform_storage_attachments (
    attachment_id text PRIMARY KEY,
    state         text NOT NULL,
    version       bigint NOT NULL,
    due_us        bigint,
    body          jsonb NOT NULL,
    live          boolean NOT NULL DEFAULT true,
    ended_state   text,
    allocation_id text,
    namespace_id  text,
    node_id       text,
    account_id    text,
    rw_holder     text
) WITH (fillfactor = 80);
-- One live read-write holder per namespace, unless its provider allows several (T1).
CREATE UNIQUE INDEX attachments_rw_holder ON platform_storage_attachments (rw_holder);
CREATE INDEX attachments_account ON platform_storage_attachments (account_id, attachment_id);
CREATE INDEX attachments_allocation ON platform_storage_attachments (allocation_id, attachment_id);
CREATE INDEX attachments_live ON platform_storage_attachments (attachment_id) WHERE live;
CREATE INDEX attachments_namespace ON platform_storage_attachments (namespace_id, attachment_id);
CREATE INDEX attachments_node ON platform_storage_attachments (node_id, attachment_id);
CREATE INDEX attachments_state ON platform_storage_attachments (state, attachment_id);
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON platform_storage_attachments
    EXECUTE FUNCTION amends_guard();
CREATE TRIGGER born BEFORE INSERT ON platform_storage_attachments EXECUTE FUNCTION amends_guard();

-- Grants at storage providers, for ever: intended before the provider is asked.
CREATE TABLE provider_grants (
    grant_id     text PRIMARY KEY,
    namespace_id text NOT NULL,
    node_id      text NOT NULL,
    provider_id  text NOT NULL,
    mode         text NOT NULL CHECK (mode IN ('ro', 'rw')),
    state        text NOT NULL CHECK (state IN ('intended', 'granted', 'revoked', 'drift')),
    changed_us   bigint NOT NULL,
    jseq         bigint NOT NULL
);
CREATE INDEX provider_grants_namespace ON provider_grants (namespace_id, node_id, grant_id);
CREATE INDEX provider_grants_standing ON provider_grants (state, grant_id) WHERE state <> 'revoked';
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON provider_grants EXECUTE FUNCTION amends_guard();
CREATE TRIGGER born BEFORE INSERT ON provider_grants EXECUTE FUNCTION amends_guard();
