"""Bugs of what is decided: rentals, nodes, money, payments (`actors/`)."""

from typing import Final

from tools.planted.bugs import Bug, Sweep, Test

DECIDE: Final = (
    Bug(
        "activation-without-its-epoch",
        "A5",
        "actors/allocation/r03_activation.py",
        'd.require("node", s.node_id, NODE_STATES, s.setup.node_epoch)',
        'd.require("node", s.node_id, NODE_STATES)',
        Test(
            "tests/simulated/test_another_machine.py::test_a_set_up_on_a_machine_that_is_another_one_comes_to_nothing"
        ),
    ),
    Bug(
        "deadline-that-nobody-sets",
        "A3",
        "actors/allocation/r02_setup.py",
        '    d.timer("deadline", d.now_us + d.limits.us("allocation_deadline_ms"))\n',
        "",
        Test("tests/simulated/test_keys.py::test_a_request_that_no_node_takes_fails_at_its_deadline"),
    ),
    Bug(
        "assignment-that-outlives-a-failure",
        "A1",
        "actors/allocation/release.py",
        """    if s.node_id is not None:
        d.row(AssignmentRow(d.id, s.node_id, "ended", d.now_us, d.now_us))
    accepted =""",
        "    accepted =",
        Sweep("R03", ("before",)),
    ),
    Bug(
        "undo-that-failed-and-is-forgotten",
        "A4",
        "actors/allocation/r02_setup.py",
        "rolled_back(d, run, s.setup.failing, owed=not m.ok)",
        "rolled_back(d, run, s.setup.failing, owed=False)",
        Test("tests/simulated/test_node_loss.py::test_a_failure_before_active_has_no_meter_no_entry_and_no_minimum"),
    ),
    Bug(
        "failed-activation-without-its-cleanup",
        "A4",
        "actors/allocation/r03_activation.py",
        "    begin_cleanup(d, run.row.id)\n    run.degrade()\n",
        '    run.end("recovered")\n',
        Sweep("R03", ("before",)),
    ),
    Bug(
        "release-that-does-not-stop-the-meter",
        "B6",
        "actors/allocation/release.py",
        "billing.end_us(d, cause, reason, accepted_us, beat_us), cause, reason)",
        "d.now_us + 60_000_000, cause, reason)",
        Sweep("R04", ("before",)),
    ),
    Bug(
        "customer-taken-for-locked-out",
        "A4",
        "actors/allocation/release.py",
        'locked=s.ending.locked == "done")',
        "locked=True)",
        Test(
            "tests/actors/test_allocation.py::"
            "test_a_release_without_a_lock_out_has_a_case_at_once_which_ends_with_the_lock"
        ),
    ),
    Bug(
        "try-that-is-recorded-as-a-success",
        "C6",
        "actors/allocation/r04_cleanup.py",
        '_compensate(s, d, run, "partial", 0, m)',
        '_compensate(s, d, run, "success", 0, m)',
        Sweep("R04", ("before",), finds="C2"),
    ),
    Bug(
        "window-that-is-not-cut-at-the-stop",
        "B1",
        "actors/money/metering.py",
        "end_us = min(window_end(at_us, window_us), until_us)",
        "end_us = window_end(at_us, window_us)",
        Sweep("R09", ("before",)),
    ),
    Bug(
        "windows-posted-from-the-start-again",
        "B3",
        "actors/money/metering.py",
        "at_us = max(posted_us, usage.start_us)",
        "at_us = usage.start_us",
        Sweep("R09", ("before",)),
    ),
    Bug(
        "window-posted-before-it-has-ended",
        "B2",
        "actors/allocation/billing.py",
        "windows(usage, window_us, posted_us, grid_start(d.now_us, window_us)), AT_ONCE))",
        "windows(usage, window_us, posted_us, d.now_us), AT_ONCE))",
        Sweep("R09", ("before",)),
    ),
    Bug(
        "stop-at-the-verdict-and-not-at-the-last-beat",
        "B6",
        "actors/allocation/billing.py",
        "return min(accepted_us, beat_us) if by_beat else accepted_us",
        "return accepted_us",
        Sweep("R08", ("before",)),
    ),
    Bug(
        "stop-that-is-raised",
        "B6",
        "actors/money/settlement.py",
        "    if end_us >= stopped_us:\n        return None\n",
        "    if end_us == stopped_us:\n        return None\n",
        Test("tests/actors/money/test_properties.py::test_ten_thousand_lives_come_to_what_the_book_says"),
    ),
    Bug(
        "overrun-that-is-kept",
        "B1",
        "actors/money/settlement.py",
        "overrun = max(0, min(owed_back, left))",
        "overrun = 0 * max(0, min(owed_back, left))",
        Sweep("R08", ("before",)),
    ),
    Bug(
        "credit-without-its-cap",
        "B4",
        "actors/money/settlement.py",
        "credit = max(0, min(raw, left - overrun))",
        "credit = max(0, raw)",
        Test("tests/actors/money/test_properties.py::test_ten_thousand_lives_come_to_what_the_book_says"),
    ),
    Bug(
        "credit-given-twice-by-a-later-proof",
        "B4",
        "actors/money/settlement.py",
        "max(0, min(owed, debited - credited))",
        "max(0, min(owed, debited))",
        Test("tests/actors/money/test_properties.py::test_ten_thousand_lives_come_to_what_the_book_says"),
    ),
    Bug(
        "credit-rounded-down",
        "B4",
        "actors/money/settlement.py",
        "raw = -(-base * bp // FULL_BP)",
        "raw = base * bp // FULL_BP",
        Test("tests/actors/money/test_properties.py::test_ten_thousand_lives_come_to_what_the_book_says"),
    ),
    Bug(
        "force-release-without-its-refund",
        "B4",
        "actors/allocation/release.py",
        '"force": "force_release"}',
        '"force": "release"}',
        Sweep("R09", ("before",), finds="C2"),
    ),
    Bug(
        "known-event-that-is-booked-again",
        "B7",
        "actors/payment/kind.py",
        "    if m.known:\n",
        "    if m.known == said.what:\n",
        Test("tests/simulated/test_payments.py::test_the_same_event_five_times_at_once_is_one_entry_and_four_records"),
    ),
    Bug(
        "refund-that-is-booked-twice",
        "B7",
        "actors/payment/kind.py",
        "    elif key in s.booked:\n        _again(d, said)\n",
        "",
        Test("tests/simulated/test_payments.py::test_any_order_and_number_of_deliveries_gives_the_same_ledger[0]"),
    ),
    Bug(
        "mirror-that-sends-again-without-looking",
        "B5",
        "actors/account/mirror.py",
        "again = replace(again, look_up=True, generation=credit.generation + 1)",
        "again = replace(again, generation=credit.generation + 1)",
        Sweep("R06", ("before",)),
    ),
    Bug(
        "verdict-that-holds-though-it-was-heard",
        "A7",
        "actors/node/r08_offline.py",
        " and not facts(d).is_heard(d.id)",
        "",
        Test(
            "tests/actors/test_node_loss.py::"
            "test_a_verdict_holds_only_while_the_node_is_silent_and_its_probes_have_failed"
        ),
    ),
    Bug(
        "loss-that-keeps-the-epoch",
        "A5",
        "actors/node/r08_offline.py",
        "epoch=epoch + 1,",
        "epoch=epoch,",
        Test(
            "tests/actors/test_node_loss.py::"
            "test_a_lost_node_tells_every_allocation_that_its_loss_concerns_at_the_epoch_they_had_it"
        ),
    ),
    Bug(
        "return-with-what-was-left-over",
        "A4",
        "actors/node/reconcile.py",
        "if CUSTOMER.fullmatch(user) and user not in expected]",
        "if CUSTOMER.fullmatch(user) and user in expected]",
        Test("tests/actors/test_node.py::test_left_over_users_are_removed_one_by_one_and_the_inventory_is_read_again"),
    ),
    Bug(
        "inventory-of-before-a-reboot-is-believed",
        "A5",
        "actors/node/reconcile.py",
        '    if m.args["node_epoch"] != s.epoch:\n        begin_reconcile(d)\n        return\n',
        "",
        Test("tests/actors/test_node.py::test_an_inventory_of_before_a_reboot_is_asked_for_again"),
    ),
    Bug(
        "altered-amount-taken-for-a-replay",
        "B7",
        "actors/allocation/r05_debit.py",
        "if posted.amount_minor == m.amount_minor:",
        "if posted.amount_minor <= m.amount_minor:",
        Sweep("R05", ("before",)),
    ),
    Bug(
        "cleanup-that-is-tried-for-ever",
        "C4",
        "actors/allocation/r04_cleanup.py",
        'if tries < run.tries("cleanup_tries"):',
        'if tries < 100 * run.tries("cleanup_tries"):',
        Test("tests/actors/test_allocation.py::test_a_cleanup_that_is_spent_has_a_case_until_it_is_done"),
    ),
    Bug(
        "case-resolved-by-a-failure",
        "C4",
        "actors/allocation/r04_cleanup.py",
        '        d.tell("node", s.node_id, Suspicion("cleanup_exhausted"))\n',
        '        d.tell("node", s.node_id, Suspicion("cleanup_exhausted"))\n    close_case(d, CASE, "tried")\n',
        Test("tests/actors/test_allocation.py::test_a_cleanup_that_is_spent_has_a_case_until_it_is_done"),
    ),
    Bug(
        "verdict-not-looked-at-again-before-its-commit",
        "A7",
        "actors/node/r08_offline.py",
        '    d.as_of_commit()\n    if _is_silent(s, d):\n        lose(d, "node_offline"',
        '    if _is_silent(s, d):\n        lose(d, "node_offline"',
        Test("tests/simulated/test_races.py::test_whatever_is_overtaken_it_ends_well[verdict-heartbeat]"),
    ),
)
