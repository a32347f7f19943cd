"""Bugs of what acts: SSH, agents, providers, Stripe, spans, the lease (`adapters/`)."""

from typing import Final

from tools.planted.bugs import Bug, Test

ACT: Final = (
    Bug(
        "silence-of-ssh-taken-for-failed",
        "A4",
        "adapters/ssh/client.py",
        '_outcome("unknown" if sent else "failed", "ssh_timeout"',
        '_outcome("failed", "ssh_timeout"',
        Test(
            "tests/adapters/ssh/test_client.py::"
            "test_each_failure_inside_a_step_has_its_outcome_and_the_next_step_is_well"
        ),
    ),
    Bug(
        "exit-without-the-last-line-is-believed",
        "A4",
        "adapters/ssh/commands.py",
        'return f"amends-done {op} {nonce}"',
        'return ""',
        Test("tests/adapters/ssh/test_not_run.py::test_no_step_is_done_where_something_swallows_its_script"),
    ),
    Bug(
        "command-without-its-epoch",
        "A5",
        "adapters/ssh/runner.py",
        'args.get("attempt", NOBODY), call.epoch,',
        'args.get("attempt", NOBODY), 0,',
        Test("tests/adapters/test_step_contract.py::test_what_comes_of_a_lower_epoch_than_the_highest_seen_is_refused"),
    ),
    Bug(
        "agent-that-takes-a-lower-epoch",
        "A5",
        "adapters/nats/agent_store.py",
        '        if runtime_epoch < memory.runtime_epoch:\n            return f"stale runtime',
        '        if runtime_epoch < 0:\n            return f"stale runtime',
        Test("tests/adapters/nats/test_agent.py::test_a_lower_epoch_is_refused_also_after_a_restart"),
    ),
    Bug(
        "agent-that-does-a-repeat-again",
        "C2",
        "adapters/nats/agent_store.py",
        "return self.memory.results.get(task_id)",
        "return None",
        Test(
            "tests/adapters/nats/test_agent.py::test_a_repeated_task_gets_the_kept_result_even_from_a_restarted_agent"
        ),
    ),
    Bug(
        "epoch-remembered-after-the-effect",
        "A5",
        "adapters/nats/agent_store.py",
        "higher = max(node_epoch, memory.node_epoch), max(runtime_epoch, memory.runtime_epoch)",
        "higher = memory.node_epoch, memory.runtime_epoch",
        Test("tests/adapters/nats/test_agent.py::test_a_lower_epoch_is_refused_also_after_a_restart"),
    ),
    Bug(
        "grant-after-its-revoke",
        "T4",
        "adapters/nats/provider_store.py",
        "modes = {held.mode for held in self.of(namespace_id, address) if held.applied and held.revoked_us is None}",
        "modes = {held.mode for held in self.of(namespace_id, address) if held.applied}",
        Test(
            "tests/adapters/providers/test_provider_contract.py::"
            "test_a_grant_gives_access_its_revoke_takes_it_and_verify_says_so"
        ),
    ),
    Bug(
        "provider-that-takes-a-lower-epoch",
        "A5",
        "adapters/nats/provider_store.py",
        "        if epoch < self._epoch:\n",
        "        if epoch < 0:\n",
        Test(
            "tests/adapters/providers/test_provider_contract.py::"
            "test_a_lower_epoch_than_the_highest_seen_is_refused_after_a_restart_too"
        ),
    ),
    Bug(
        "credit-under-a-random-key",
        "B5",
        "adapters/stripe/mirror.py",
        'return f"{self.ledger_key}#{self.generation}" if self.generation else self.ledger_key',
        'return __import__("secrets").token_hex(8)',
        Test("tests/adapters/stripe/test_mirror_contract.py::test_the_same_credit_twice_is_one_transaction"),
    ),
    Bug(
        "old-credit-that-is-not-looked-up",
        "B5",
        "adapters/stripe/mirror.py",
        "if credit.look_up or self._now_us() - credit.first_us >= FORGOTTEN_US:",
        "if credit.look_up:",
        Test(
            "tests/adapters/stripe/test_mirror_contract.py::"
            "test_a_key_that_stripe_has_forgotten_is_looked_up_before_it_is_sent"
        ),
    ),
    Bug(
        "broken-connection-taken-for-never-sent",
        "B5",
        "adapters/stripe/outcomes.py",
        'BROKEN: Final[Row] = ("unknown", "stripe_unreachable", True)',
        'BROKEN: Final[Row] = ("failed", "stripe_unreachable", False)',
        Test("tests/adapters/stripe/test_mirror_contract.py::test_of_a_lost_reply_nobody_knows_and_again_it_is_one"),
    ),
    Bug(
        "webhook-that-is-replayed-later",
        "B7",
        "adapters/stripe/signatures.py",
        "    if age_s > tolerance_s:\n",
        "    if age_s > 1e9:\n",
        Test("tests/adapters/stripe/test_signatures.py::test_beyond_the_tolerance_it_is_refused_either_way"),
    ),
    Bug(
        "webhook-that-nobody-signed",
        "B7",
        "adapters/stripe/signatures.py",
        "    if not sum(hmac.compare_digest(ours, theirs) for ours in made for theirs in signatures):\n",
        "    if not made:\n",
        Test("tests/adapters/stripe/test_signatures.py::test_a_signature_of_another_secret_or_body_is_refused"),
    ),
    Bug(
        "place-kept-before-the-acknowledgement",
        "S3",
        "adapters/otel/exporter.py",
        "        if rows:\n            refused = await self._send(receiver, rows)",
        "        if rows:\n            await self._write_cursor(upto)\n            refused = await "
        "self._send(receiver, rows)",
        Test(
            "tests/simulated/test_export.py::"
            "test_an_exporter_that_dies_anywhere_loses_nothing_and_repeats_one_request_at_most"
        ),
    ),
    Bug(
        "failed-span-shown-as-good",
        "S4",
        "adapters/otel/encoding.py",
        'parts.append(_STATUS.get(row["status"]) or _field(b"\\x7a", _failed(row["status_message"])))',
        'parts.append(_STATUS.get(row["status"]) or b"")',
        Test("tests/adapters/otel/test_encoding.py::test_every_span_of_a_long_story_is_what_the_sdk_writes"),
    ),
    Bug(
        "lease-taken-from-a-living-holder",
        "A5",
        "adapters/postgres/lease.py",
        "STALE_S = 5.0",
        "STALE_S = 0.0",
        Test(
            "tests/adapters/postgres/test_lease.py::"
            "test_a_lease_is_taken_once_it_was_seen_unrenewed_and_only_time_of_looking_counts"
        ),
    ),
    Bug(
        "lease-that-never-ages",
        "A5",
        "adapters/postgres/lease.py",
        "return not self._lost and self.age_s < ACT_S",
        "return not self._lost",
        Test(
            "tests/adapters/postgres/test_lease.py::"
            "test_where_postgres_takes_no_writes_the_holder_still_answers_and_begins_nothing"
        ),
    ),
    Bug(
        "epoch-that-is-not-compared-at-the-head",
        "C8",
        "adapters/postgres/journal.py",
        'if row is None or row["epoch"] != self._epoch:',
        "if row is None:",
        Test("tests/adapters/test_journal_contract.py::test_an_older_epoch_writes_and_reads_the_head_no_more"),
    ),
    Bug(
        "server-at-work-taken-for-a-forgotten-connection",
        "L1",
        "adapters/postgres/silence.py",
        "        if await _waits_for_us(connection.get_server_pid(), dsn):\n",
        "        if connection.get_server_pid():\n",
        Test("tests/adapters/postgres/test_lost_reply.py::test_a_server_that_is_at_work_is_waited_for"),
    ),
    Bug(
        "timeout-of-the-bus-taken-for-an-acknowledgement",
        "C7",
        "adapters/nats/publishing.py",
        'return Published("down", "ack_timeout", str(error) or "no acknowledgement in time")',
        'return Published("ok")',
        Test("tests/adapters/nats/test_publishing.py::test_what_never_reached_the_broker_is_judged_alike"),
    ),
)
