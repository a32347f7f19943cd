"""Bugs of a turn and of its sealing: undo, records, audit (`src/amends/turn/`, `src/amends/delivery/`)."""

from typing import Final

from tools.planted.bugs import Bug, Sweep, Test

TURN: Final = (
    Bug(
        "undo-in-start-order",
        "C3",
        "src/amends/turn/recovery.py",
        "owed: Owed = self._d.state.owed[-1]",
        "owed: Owed = self._d.state.owed[0]",
        Test("tests/amends/test_law.py::test_undo_goes_backwards_and_runs_the_step_that_is_declared"),
    ),
    Bug(
        "undo-that-is-owed-by-nobody",
        "A4",
        "src/amends/turn/decision.py",
        "            self.set(owed=(*self.state.owed, owed))  # from",
        "            pass  # from",
        Sweep("R02", ("before",)),
    ),
    Bug(
        "unknown-taken-for-never-run",
        "A4",
        "src/amends/turn/decision.py",
        "if done.ok or done.outcome.may_have_run or self._state is None:",
        "if done.ok or self._state is None:",
        Test("tests/amends/test_law.py::test_an_undo_is_owed_with_its_arguments_from_the_intent_on"),
    ),
    Bug(
        "transition-that-no-table-lists",
        "A2",
        "src/amends/turn/decision.py",
        "        self._check_transition(old.state, state)\n",
        "",
        Test("tests/amends/test_law.py::test_a_move_that_no_table_lists_is_a_bug"),
    ),
    Bug(
        "two-transitions-in-a-turn",
        "A2",
        "src/amends/turn/decision.py",
        "if self._moved and self.kind.events:",
        "if self._moved and self.kind.events and not self.id:",
        Test("tests/amends/test_law.py::test_a_second_move_in_one_turn_is_a_bug"),
    ),
    Bug(
        "change-of-state-without-its-entry",
        "U2",
        "src/amends/turn/decision.py",
        '        self._audit(f"{self.kind.name}.{target}", self.ref, source, target, reason, details)\n',
        '        if source is None or cause:\n            self._audit(f"{self.kind.name}.{target}", '
        "self.ref, source, target, reason, details)\n",
        Sweep("R02", ("before",)),
    ),
    Bug(
        "entry-without-a-change",
        "U2",
        "src/amends/turn/cases.py",
        '    d.audit_change("case.resolved", f"case:{case_id}", _state(d, case_id), "resolved", reason or kind, {})\n',
        "",
        Sweep("R13", ("before",)),
    ),
    Bug(
        "entry-that-names-no-epoch",
        "U4",
        "src/amends/turn/decision.py",
        "                self.recovery_trace_id,\n                self.context.epoch,\n                details,",
        "                self.recovery_trace_id,\n                0,\n                details,",
        Test("tests/amends/test_law.py::test_every_entry_says_who_when_why_and_in_which_epoch"),
    ),
    Bug(
        "event-that-skips-a-number",
        "C8",
        "src/amends/turn/decision.py",
        "self.set(event_seq=seq + len(self._events))",
        "self.set(event_seq=seq + 1 + len(self._events))",
        Sweep("R02", ("before",), finds="C7"),
    ),
    Bug(
        "action-that-skips-a-number",
        "C8",
        "src/amends/turn/recovery.py",
        "sequence = self._run.sequence + 1",
        "sequence = self._run.sequence + 2",
        Sweep("R02", ("before",)),
    ),
    Bug(
        "compensation-key-without-its-attempt",
        "C2",
        "src/amends/turn/recovery.py",
        '{cause}:{compensation}:{attempt}"',
        '{cause}:{compensation}"',
        Sweep("R07", ("before",), finds="L1"),
    ),
    Bug(
        "run-that-ends-though-an-undo-is-missing",
        "C6",
        "src/amends/turn/recovery.py",
        """            self._d.rows.append(RunEndRow(self._run.recovery_id, "degraded", None, "{}"))""",
        """            self._d.rows.append(RunEndRow(self._run.recovery_id, "recovered", self._d.now_us, "{}"))""",
        Test("tests/simulated/test_crash_sweep.py::test_nothing_is_wrong_at_any_committed_instant[R04]"),
    ),
    Bug(
        "exhausted-without-a-case",
        "C4",
        "src/amends/turn/recovery.py",
        """        case_id = self.escalate(self.row.exhausts, target_ref, evidence)
        self.end("failed")
        return case_id""",
        '''        self.end("failed")
        return ""''',
        Test("tests/amends/test_law.py::test_a_spent_budget_ends_as_the_row_says"),
    ),
    Bug(
        "chain-that-starts-anew-with-each-commit",
        "U1",
        "src/amends/turn/seal.py",
        "audit_seq, prev = head.audit_seq, head.hash",
        'audit_seq, prev = head.audit_seq, "0" * 64',
        Sweep("R02", ("before",)),
    ),
    Bug(
        "hash-that-leaves-out-the-details",
        "U1",
        "src/amends/turn/seal.py",
        "draft.to_state, draft.reason, draft.request_id, draft.trace_id, draft.recovery_trace_id, "
        "draft.epoch,\n        draft.details,\n",
        "draft.to_state, draft.reason, draft.request_id, draft.trace_id, draft.recovery_trace_id, "
        "draft.epoch,\n        {},\n",
        Sweep("R02", ("before",)),
    ),
    Bug(
        "notification-with-a-random-id",
        "C2",
        "src/amends/delivery/notices.py",
        'args["message_id"], trace)',
        '__import__("secrets").token_hex(8), trace)',
        Sweep("R04", ("lost",), at="publish ntf"),
    ),
    Bug(
        "missing-acknowledgement-taken-for-one",
        "C7",
        "src/amends/delivery/notices.py",
        'if done.kind in ("ok", "duplicate"):',
        'if done.kind in ("ok", "duplicate", "down"):',
        Sweep("R07", ("before",), finds="L1"),
    ),
    Bug(
        "event-with-a-random-id",
        "C2",
        "src/amends/delivery/relay.py",
        "self._publisher.publish(row.subject, row.payload.encode(), row.outbox_id, trace)",
        'self._publisher.publish(row.subject, row.payload.encode(), __import__("secrets").token_hex(8), trace)',
        Test("tests/simulated/test_bus.py::test_what_was_taken_and_not_acknowledged_is_sent_again_and_is_there_once"),
    ),
    Bug(
        "event-that-counts-as-published-before",
        "C7",
        "src/amends/delivery/relay.py",
        '        if result.kind in ("ok", "duplicate"):\n            self._marks',
        '        if result.kind != "poison":\n            self._marks',
        Sweep("R01", ("before",), finds="C6"),
    ),
)
