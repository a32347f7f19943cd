-- Records come from the runtime's own sessions only, births included: what a hand or a script slips in is refused (U2).
-- One check for each statement, not for each row.
DO $$
DECLARE
    guarded text;
BEGIN
    FOREACH guarded IN ARRAY ARRAY[
        'actors', 'notifications', 'accounts', 'nodes', 'allocations', 'assignments', 'debts', 'meters', 'ledger_entries',
        'audit_log', 'failure', 'recovery_run', 'recovery_action', 'compensation', 'ops_case', 'step', 'outbox', 'message',
        'message_quarantine', 'command'
    ] LOOP
        EXECUTE format('CREATE TRIGGER born BEFORE INSERT ON %I EXECUTE FUNCTION amends_guard()', guarded);
    END LOOP;
END $$;
