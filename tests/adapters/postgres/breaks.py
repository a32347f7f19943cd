"""What each check of `invariant_violation` is there to see, and the damage that brings it about."""

OWED = """UPDATE debts SET settled_us = NULL;
    UPDATE allocations SET live = true, cleanup_pending = true,
        body = body || '{"owing": true, "cleanup_pending": true}'"""
FAILED = "UPDATE recovery_run SET final_outcome = 'failed' WHERE matrix_row = 'R07'"
ESCALATED = f"""{FAILED};
    UPDATE recovery_action AS action SET action_type = 'escalate', what = 'cleanup_exhausted', target_ref = run.entity
    FROM recovery_run AS run WHERE run.recovery_trace_id = action.recovery_trace_id AND matrix_row = 'R07'"""
DEBIT = "('{}', 'acct1', 'm', 'debit', 1, 'usd', '{}', 'h', NULL, 5, 5, 1)"
ATTACHMENT = """INSERT INTO platform_storage_attachments
    SELECT '{identifier}', '{state}', 1, NULL, jsonb_build_object('allocation_id', allocation_id, 'mode', 'rw',
        'namespace_id', 'data', 'node_id', '{node_id}', 'rw_holder', 'data'), true, NULL, allocation_id, 'data',
        '{node_id}', 'acct1', 'data'
    FROM allocations WHERE state = 'released'"""


def attachment(identifier: str, state: str, node_id: str) -> str:
    """One of the rental that has been released."""
    return ATTACHMENT.format(identifier=identifier, state=state, node_id=node_id)


GRANT = "INSERT INTO provider_grants VALUES ('g1', 'data', 'n1', 'p1', 'rw', 'granted', 5, 1)"
OUTCOME_AND_END = "C6 allocation: outcome and end do not fit"
# What is shown, and what brings it about.
BREAKS = [
    ("A1 node: several live assignments", """DROP INDEX assignments_live;
     UPDATE assignments SET node_id = 'n1', state = 'active'"""),
    ("A1 allocation: a live assignment does not fit its allocation",
     "UPDATE assignments SET state = 'active', ended_us = NULL WHERE node_id = 'n1'"),
    ("A1 allocation: it lives without an assignment",
     "UPDATE allocations SET state = 'active', live = true WHERE state = 'released'"),
    ("A3 allocation: nothing moves it on",
     "UPDATE allocations SET state = 'provisioning', live = true WHERE state = 'failed'"),
    ("A3 stripe_event: it is deferred, and its payment does not wait",
     """INSERT INTO stripe_events VALUES ('evt_1', 'refund.created', 'pi_1', 'deferred', NULL, 1, 1)"""),
    ("B1 account: its balance is not what its months come to",
     "INSERT INTO ledger_balances VALUES ('nobody', 0, 5, 1)"),
    ("A3 notification: nothing moves it on", "UPDATE notifications SET state = 'pending', live = true"),
    ("A3 allocation: nothing moves its cleanup on", OWED),
    ("A3 node: nothing brings it back", "DELETE FROM step WHERE name = 'agent.reconcile'"),
    ("A3 node: nothing brings it back", """DELETE FROM step WHERE name = 'agent.reconcile';
     UPDATE nodes SET body = body || '{"returning": true, "quarantine_reasons": ["operator"]}' WHERE node_id = 'n2'"""),
    ("A3 node: nothing brings it back", """DELETE FROM step WHERE name = 'agent.reconcile';
     UPDATE nodes SET body = body || '{"quarantine_reasons": ["operator", "restored"]}' WHERE node_id = 'n2'"""),
    ("A3 node: a step is intended for nobody",
     "UPDATE step SET state = 'intended', ended_us = NULL, month = 0, entity = 'node:gone'"),
    ("A4 node: a debt whose allocation owes no cleanup", "UPDATE debts SET settled_us = NULL"),
    ("A4 allocation: a pending cleanup that no debt lists", f"{OWED}; DELETE FROM debts"),
    ("B1 meter: its entries are not what it has counted",
     "UPDATE meters SET rate_uminor_per_hour = rate_uminor_per_hour * 1000000"),
    ("B1 meter: it has stopped, and not all of it is posted", "UPDATE meters SET posted_through_us = started_us"),
    ("B2 meter: its windows have a gap", "UPDATE meters SET window_us = 1000"),
    ("B4 meter: it has given back more than it took", """INSERT INTO ledger_entries
     SELECT 'ent_x', account_id, meter_id, 'credit', 1000000, 'usd', 'credit:x', 'h', NULL, NULL, 5, 1 FROM meters"""),
    ("B3 meter: several debits of one window",
     f"INSERT INTO ledger_entries VALUES {DEBIT.format(1, 1)}, {DEBIT.format(2, 2)}"),
    ("B6 allocation: it is active and its clock does not run",
     "UPDATE allocations SET state = 'active', live = true WHERE state = 'failed'"),
    ("B6 meter: it runs and its allocation is not active",
     "UPDATE meters SET state = 'accruing', stopped_us = NULL, stop_cause = NULL"),
    ("B6 meter: it does not say what its allocation says",
     """UPDATE allocations SET body = body || '{"billing": {"state": "accruing"}}'"""),
    ("T1 namespace: several writers", f"""DROP INDEX attachments_rw_holder;
     {attachment("a1", "attached", "n1")}; {attachment("a2", "detaching", "n2")}"""),
    ("T2 attachment: it is being attached and its allocation is over", attachment("a1", "mounting", "n1")),
    ("T4 attachment: it is attached and its allocation is over", attachment("a1", "attached", "n1")),
    ("T3 provider_grant: another node has a writer", f"{GRANT}; {attachment('a1', 'granted', 'n2')}"),
    ("T3 provider_grant: it stands, and no attachment holds it", f"{GRANT}; {attachment('a1', 'detached', 'n1')}"),
    ("A3 attachment: nothing moves it on", attachment("a1", "detaching", "n1")),
    ("C1 allocation: several open runs of one row", """UPDATE recovery_run
     SET matrix_row = 'R04', month = 0, ended_us = NULL, final_outcome = NULL, entity = 'allocation:a'"""),
    ("C4 notification: a failed run without a case", FAILED),
    # A word of escalation is not enough, nor is a case that was settled before.
    ("C4 notification: a failed run without a case", ESCALATED),
    ("C4 notification: a failed run without a case", f"""{ESCALATED};
     UPDATE ops_case SET jseq = 1, target_ref = (SELECT entity FROM recovery_run WHERE matrix_row = 'R07')"""),
    ("C6 allocation: recovered, though the last undo of a target did not succeed",
     "UPDATE recovery_action SET outcome = 'failure'; UPDATE compensation SET outcome = 'failure'"),
    ("C6 allocation: an open run that nobody writes", "UPDATE recovery_run SET ended_us = NULL, month = 0"),
    ("C6 node: it writes a run that is not open",
     """UPDATE nodes SET body = body || '{"runs": {"R08": {"recovery_id": "recov_x"}}}'"""),
    (OUTCOME_AND_END, "UPDATE recovery_run SET ended_us = NULL, month = 0"),
    (OUTCOME_AND_END, "UPDATE recovery_run SET final_outcome = 'degraded'"),
    (OUTCOME_AND_END, "UPDATE recovery_run SET final_outcome = NULL"),
    ("C7 outbox: published without a publish",
     "UPDATE outbox SET state = 'published', published_us = 1, month = 202601"),
    ("C8 recovery_run: gaps in the sequence", "DELETE FROM recovery_action WHERE sequence = 1"),
    ("C8 recovery_run: a compensation and its action differ", "DELETE FROM compensation"),
    ("C8 recovery_run: an action of no run", "DELETE FROM recovery_run WHERE matrix_row = 'R07'"),
    ("U1 audit_log: it does not follow the entry before it", "DELETE FROM audit_log WHERE seq = 3"),
    ("U1 audit_log: it does not follow the entry before it", "DELETE FROM audit_log WHERE seq < 3"),
    ("U1 audit_log: it does not follow the entry before it",
     "UPDATE audit_log SET prev_hash = repeat('1', 64) WHERE seq = 1"),
    ("U1 audit_log: it does not follow the entry before it",
     "UPDATE audit_log SET hash = repeat('f', 64) WHERE seq = 5"),
    ("U1 audit_log: the chain does not end where the journal says",
     "DELETE FROM audit_log WHERE seq = (SELECT max(seq) FROM audit_log)"),
    ("U3 node: an entry does not begin in the state in which the one before it ended",
     """UPDATE audit_log SET from_state = 'offline' WHERE seq = (
        SELECT max(seq) FROM audit_log WHERE target_ref LIKE 'node:%' AND to_state IS NOT NULL)"""),
    ("U3 node: an entry does not begin in the state in which the one before it ended",
     """UPDATE audit_log SET from_state = NULL WHERE seq = (
        SELECT max(seq) FROM audit_log WHERE target_ref LIKE 'node:%' AND to_state IS NOT NULL)"""),
    ("U4 audit_log: it does not say who, in which trace or epoch", "UPDATE audit_log SET actor = '' WHERE seq = 3"),
    ("U4 audit_log: it does not say who, in which trace or epoch",
     "UPDATE audit_log SET trace_id = 'x' WHERE to_state IS NOT NULL AND target_ref LIKE 'node:%'"),
    ("U2 node: its state is not the one last audited", "UPDATE nodes SET state = 'ready' WHERE node_id = 'n2'"),
]  # fmt: skip


# What looks like a pending cleanup that no debt lists, and is none: a mount is owed, or has been until just now.
LISTED = [
    f"{OWED}; UPDATE debts SET kind = 'mount'",
    f"""{OWED}; DELETE FROM debts; INSERT INTO message
        SELECT allocation_id, 'allocation', allocation_id, 'AttachmentSettled', '{{}}', '', '', '', '', 1, 1
        FROM allocations""",
]
OVERDUE = (
    "A3 node: a timer is overdue and no case says why",
    """UPDATE runtime_epoch SET started_us = 1;
     UPDATE nodes SET due_us = 1 WHERE node_id = 'n1'""",
)
