"""Bugs of what runs and watches: engine, writer, dispatcher, recovery, detector, guards."""

from typing import Final

from tools.planted.bugs import Bug, Sweep, Test

WATCH: Final = (
    Bug(
        "acknowledged-before-the-commit",
        "C7",
        "src/amends/runtime/engine.py",
        "            self.writer.submit(pending)\n\n    def _decided",
        "            done, pending.done = pending.done, lambda error: None\n            "
        "self.writer.submit(pending)\n            done(None)\n\n    def _decided",
        Sweep("R02", ("before",)),
    ),
    Bug(
        "requirement-that-forgets-the-epoch",
        "A5",
        "src/amends/turn/decision.py",
        "self._requires.append((kind, identifier, states, epoch))",
        "self._requires.append((kind, identifier, states, None))",
        Test(
            "tests/simulated/test_another_machine.py::test_a_set_up_on_a_machine_that_is_another_one_comes_to_nothing"
        ),
    ),
    Bug(
        "requirement-that-is-not-looked-at",
        "A1",
        "src/amends/runtime/writer.py",
        "elif all(self._holds(requirement) for requirement in pending.turn.requires):",
        "elif pending.turn is not None:",
        Test("tests/amends/test_writer.py::test_a_requirement_that_no_longer_holds_refuses_its_turn_alone"),
    ),
    Bug(
        "commit-in-doubt-taken-for-lost",
        "C2",
        "src/amends/runtime/writer.py",
        "if not await self._journal.settled(commit):",
        "if await self._journal.settled(commit) is not None:",
        Test("tests/amends/test_writer.py::test_a_batch_whose_commit_was_lost_but_arrived_is_not_decided_again"),
    ),
    Bug(
        "commit-in-doubt-taken-for-done",
        "C7",
        "src/amends/runtime/writer.py",
        "                    return False  # the breaker",
        "                    return True  # the breaker",
        Test("tests/amends/test_writer.py::test_while_the_database_is_away_nothing_fails_and_nothing_is_lost"),
    ),
    Bug(
        "outdated-turn-that-commits-after-an-outage",
        "A7",
        "src/amends/runtime/writer.py",
        "        anew = _decided_anew(batch, lambda each: True)\n",
        "        anew = batch\n",
        Test("tests/amends/test_writer.py::test_what_waited_out_an_outage_is_decided_anew_before_it_commits"),
    ),
    Bug(
        "timers-that-a-restart-loses",
        "L1",
        "src/amends/runtime/loading.py",
        "                    engine.timers.arm(kind.name, actor.id, actor.due_us)\n",
        "",
        Sweep("R03", ("after",)),
    ),
    Bug(
        "steps-that-a-restart-loses",
        "L1",
        "src/amends/runtime/loading.py",
        "    dispatcher.accept(row)\n",
        "",
        Sweep("R02", ("before",)),
    ),
    Bug(
        "messages-that-a-restart-loses",
        "L1",
        "src/amends/runtime/loading.py",
        "    engine.tell(row.to_kind, row.to_id, env)\n    return None",
        "    return None",
        Sweep("R08", ("after",), at="commit"),
    ),
    Bug(
        "message-taken-in-twice",
        "C2",
        "src/amends/runtime/loading.py",
        "message_id=row.message_id, priority=True,\n    )  # fmt: skip\n    engine.tell(row.to_kind, row.to_id, env)",
        'message_id="", priority=True,\n    )  # fmt: skip\n    engine.tell(row.to_kind, row.to_id, env)',
        Sweep("R08", ("after",), at="commit", finds="L1"),
    ),
    Bug(
        "debt-that-a-restart-forgets",
        "A4",
        "supervisors/loading.py",
        '                pool.load_debt(debt.debt_id, debt.node_id, debt.allocation_id or "")\n',
        "                pass\n",
        Test("tests/simulated/test_owed.py::test_a_node_that_owes_a_cleanup_is_nobodys_after_a_restart_either"),
    ),
    Bug(
        "assignment-that-a-restart-forgets",
        "A1",
        "supervisors/loading.py",
        "            pool.load_assignment(tie.allocation_id, tie.node_id, tie.state)\n",
        "            pass\n",
        Sweep("R08", ("after",), at="commit", finds="L1"),
    ),
    Bug(
        "meter-that-a-restart-forgets",
        "B2",
        "supervisors/loading.py",
        "            pool.meters.take_in(meter)\n",
        "            pass\n",
        Sweep("R09", ("after",), at="commit"),
    ),
    Bug(
        "try-of-an-earlier-runtime-taken-for-ours",
        "A4",
        "src/amends/runtime/dispatcher.py",
        "if row.epoch != call.epoch:",
        "if row.epoch > call.epoch:",
        Test(
            "tests/amends/test_dispatcher.py::"
            "test_a_try_that_an_earlier_runtime_may_have_begun_may_have_run_whatever_this_one_says"
        ),
    ),
    Bug(
        "time-over-taken-for-failed",
        "A4",
        "src/amends/runtime/dispatcher.py",
        'return Outcome("unknown", "timeout", f"{call.name} gave',
        'return Outcome("failed", "timeout", f"{call.name} gave',
        Test(
            "tests/amends/test_dispatcher.py::"
            "test_a_step_whose_adapter_never_comes_back_is_unknown_once_its_time_is_over"
        ),
    ),
    Bug(
        "effects-without-a-lease",
        "A5",
        "src/amends/runtime/dispatcher.py",
        "            if not self._may_act():\n                return True\n",
        "",
        Test("tests/amends/test_dispatcher.py::test_nothing_begins_while_the_lease_is_old"),
    ),
    Bug(
        "two-steps-at-once-on-a-node",
        "A4",
        "src/amends/runtime/dispatcher.py",
        "if not queue or self._running.get(target, 0) >= self._steps[queue[0].name].per_target:",
        "if not queue:",
        Test("tests/amends/test_dispatcher.py::test_a_target_has_one_step_at_a_time_and_others_are_not_held_by_it"),
    ),
    Bug(
        "repeat-that-is-done-again",
        "B7",
        "src/amends/runtime/requests.py",
        "        if kept is not None:\n            if kept.body_hash",
        "        if kept is not None and not kept.reply:\n            if kept.body_hash",
        Test(
            "tests/simulated/test_keys.py::test_a_repeat_gets_the_first_reply_and_another_body_under_its_key_is_refused"
        ),
    ),
    Bug(
        "key-with-another-body",
        "B7",
        "src/amends/runtime/requests.py",
        "            if kept.body_hash != info.body_hash:\n",
        "            if not info.body_hash:\n",
        Test(
            "tests/simulated/test_keys.py::test_a_repeat_gets_the_first_reply_and_another_body_under_its_key_is_refused"
        ),
    ),
    Bug(
        "concurrent-repeat-that-is-done-as-well",
        "B7",
        "src/amends/runtime/requests.py",
        "        if flying is not None:\n",
        "        if flying is not None and not key:\n",
        Test("tests/simulated/test_keys.py::test_of_repeats_that_come_at_once_one_is_done"),
    ),
    Bug(
        "heartbeats-believed-by-a-blind-detector",
        "A7",
        "supervisors/detector.py",
        "return self._linked() and self._mono() - self._canary <= self._suspect_s",
        "return True",
        Test(
            "tests/supervisors/test_detector.py::"
            "test_a_blind_detector_judges_nobody_and_deadlines_start_again_with_sight"
        ),
    ),
    Bug(
        "deadlines-that-do-not-begin-again-with-sight",
        "A7",
        "supervisors/detector.py",
        "since = max(seen.at, self._sight_since)",
        "since = seen.at",
        Test(
            "tests/supervisors/test_detector.py::"
            "test_a_blind_detector_judges_nobody_and_deadlines_start_again_with_sight"
        ),
    ),
    Bug(
        "own-deafness-taken-for-a-nodes-silence",
        "A7",
        "supervisors/detector.py",
        "return due if self._canary >= since + self._beat_s else max(due, self._mono() + self.tick_s)",
        "return due",
        Test(
            "tests/supervisors/test_detector.py::"
            "test_who_was_heard_a_little_before_everything_fell_silent_is_not_taken_for_silent"
        ),
    ),
    Bug(
        "site-that-is-judged-as-a-whole",
        "A7",
        "supervisors/guards.py",
        "held = gone >= self._least and gone * 100 > self._percent * counts.total",
        "held = False and gone >= self._least",
        Test("tests/simulated/test_node_loss.py::test_a_site_that_comes_back_was_never_judged"),
    ),
    Bug(
        "verdicts-without-a-limit",
        "A7",
        "supervisors/guards.py",
        "        if self._tokens < 1:\n            return False\n",
        "",
        Test("tests/supervisors/test_guards.py::test_verdicts_are_so_many_a_second"),
    ),
    Bug(
        "two-machines-taken-for-a-reboot",
        "A7",
        "supervisors/boots.py",
        "            changes.rival = was\n",
        "            pass\n",
        Test("tests/supervisors/test_boots.py::test_a_boot_id_that_comes_back_within_the_window_is_a_rival"),
    ),
    Bug(
        "window-that-is-never-posted",
        "B2",
        "supervisors/meters.py",
        "        self._arm(row.meter_id, end_us + zlib.crc32(row.meter_id.encode()) % window_us)\n",
        "",
        Sweep("R05", ("before",), finds="L1"),
    ),
)
