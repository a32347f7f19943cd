-- Indexes of lists (0012) that were not used: a page is in the order of ids, and nothing tells the planner how rare a
-- value of an expression is, so those end with the id; and a view's column that hides '' is found by that expression only.

DROP INDEX accounts_customer;
CREATE INDEX accounts_customer ON accounts ((body ->> 'stripe_customer_id'), account_id)
    WHERE (body ->> 'stripe_customer_id') IS NOT NULL;

DROP INDEX notifications_account, notifications_entity;
CREATE INDEX notifications_account ON notifications ((body ->> 'account_id'), notification_id);
CREATE INDEX notifications_account_kind ON notifications ((body ->> 'account_id'), (body ->> 'kind'), notification_id);
CREATE INDEX notifications_entity ON notifications ((body ->> 'entity'), notification_id);

CREATE INDEX failure_of_run ON failure (nullif(recovery_trace_id, ''), failure_id);
CREATE INDEX failure_of_trace ON failure (nullif(trace_id, ''), failure_id);
CREATE INDEX recovery_run_of_trace ON recovery_run (nullif(original_trace_id, ''), recovery_id);
CREATE INDEX ops_case_of_run ON ops_case (nullif(recovery_trace_id, ''), case_id);

DROP INDEX audit_log_request, audit_log_recovery;
CREATE INDEX audit_log_request ON audit_log (nullif(request_id, ''), audit_id) WHERE nullif(request_id, '') IS NOT NULL;
CREATE INDEX audit_log_recovery ON audit_log (nullif(recovery_trace_id, ''), audit_id)
    WHERE nullif(recovery_trace_id, '') IS NOT NULL;
