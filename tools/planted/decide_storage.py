"""Bugs of what is decided: attachments, access, quotas (`actors/attachment/`, `actors/grant/`, `actors/namespace/`)."""

from typing import Final

from tools.planted.bugs import Bug, Sweep, Test

DECIDE_STORAGE: Final = (
    Bug(
        "two-writers",
        "T1",
        "actors/attachment/r10_precheck.py",
        "return any(others) or any(nodes)",
        "return False",
        Test(
            "tests/simulated/test_storage_grants.py::"
            "test_while_a_reader_shares_a_writers_access_no_other_node_may_write"
        ),
    ),
    Bug(
        "writer-that-holds-nothing",
        "T1",
        "actors/attachment/kind.py",
        "rw_holder=s.namespace_id if alone else None)",
        "rw_holder=None)",
        Test("tests/simulated/test_storage.py::test_of_twenty_that_want_to_write_at_once_one_may"),
    ),
    Bug(
        "blocked-namespace-that-is-written",
        "T1",
        "actors/attachment/r10_precheck.py",
        '"quota_blocked": lambda s, seen, d: s.mode == "rw" and',
        '"quota_blocked": lambda s, seen, d: s.mode == "r" and',
        Test("tests/simulated/test_storage_loss.py::test_a_provider_that_does_not_tell_blocks_writers_until_it_does"),
    ),
    Bug(
        "refusal-without-its-record",
        "C1",
        "actors/attachment/r10_precheck.py",
        '    run.end("recovered")\n    end(s, d, text)',
        "    end(s, d, text)",
        Sweep("R10", ("before",), finds="C6"),
    ),
    Bug(
        "grant-that-is-not-verified",
        "A6",
        "actors/grant/kind.py",
        'good = m.ok and bool(m.outcome.data.get("granted")) and m.outcome.data.get("mode", held.mode) '
        "in COVERS[held.mode]",
        "good = m.ok",
        Test("tests/simulated/test_storage.py::test_access_that_is_not_granted_for_good_is_taken_back"),
    ),
    Bug(
        "revoke-that-is-believed",
        "T3",
        "actors/grant/kind.py",
        '    if m.ok and not m.outcome.data.get("granted"):\n        d.set(held',
        "    if m.ok:\n        d.set(held",
        Test(
            "tests/simulated/test_storage.py::"
            "test_access_that_the_provider_keeps_blocks_the_pair_until_an_operator_has_it_reconciled"
        ),
    ),
    Bug(
        "unknown-revoke-taken-for-failed",
        "T3",
        "actors/grant/kind.py",
        'if m.name == REVOKE and (m.ok or m.outcome.kind == "unknown"):',
        "if m.name == REVOKE and m.ok:",
        Test(
            "tests/simulated/test_storage_grants.py::"
            "test_a_revoke_that_is_done_and_not_answered_is_asked_about_and_is_no_drift"
        ),
    ),
    Bug(
        "shared-access-taken-from-the-others",
        "T5",
        "actors/grant/kind.py",
        "shared = bool(users) and not m.fence",
        "shared = False",
        Test(
            "tests/simulated/test_storage.py::"
            "test_two_of_one_namespace_and_node_share_the_access_and_the_last_one_gives_it_back"
        ),
    ),
    Bug(
        "partial-grant-that-is-left",
        "A6",
        "actors/attachment/r11_grant.py",
        '        d.part("undo", code=m.code, row=run.row.id)\n        leave(d, run)\n',
        '        run.end("recovered")\n        r10_precheck.end(d.state, d, m.code)\n',
        Sweep("R11", ("before",), finds="T3"),
    ),
    Bug(
        "access-taken-back-before-the-unmount",
        "C3",
        "actors/attachment/r12_mount.py",
        "if absent or silent:",
        "if absent or silent or not m.ok:",
        Sweep("R12", ("before",), finds="C2"),
    ),
    Bug(
        "unmount-that-failed-and-is-believed",
        "T3",
        "actors/attachment/r13_detach.py",
        "return m.ok or absent",
        "return True",
        Test(
            "tests/simulated/test_storage_detach.py::"
            "test_a_retry_that_succeeds_late_records_what_it_undid_in_its_own_run"
        ),
    ),
    Bug(
        "detach-that-is-given-up-without-a-debt",
        "A4",
        "actors/attachment/r13_detach.py",
        '    mount.owe(d)\n    d.part("leaving", earlier=earlier',
        '    d.part("leaving", earlier=earlier',
        Test(
            "tests/simulated/test_storage.py::"
            "test_a_release_goes_on_without_what_cannot_be_unmounted_and_its_node_is_nobodys_until_then"
        ),
    ),
    Bug(
        "release-that-does-not-wait-for-attachments",
        "T4",
        "actors/allocation/release.py",
        "    if not attachments.wait(d):\n        finish(d)\n",
        "    attachments.wait(d)\n    finish(d)\n",
        Test("tests/simulated/test_storage.py::test_a_release_detaches_what_is_attached_before_it_commits"),
    ),
    Bug(
        "loss-of-a-node-that-keeps-its-access",
        "T3",
        "actors/attachment/node_loss.py",
        "    r13_detach.leave(d, run, fence=True)\n",
        "    r13_detach.mount.unmount(d, run, 1)\n",
        Test(
            "tests/simulated/test_storage_loss.py::"
            "test_a_lost_node_loses_its_access_first_and_the_mount_when_it_is_back"
        ),
    ),
    Bug(
        "quota-without-hysteresis",
        "C1",
        "actors/namespace/r14_quota.py",
        "READS = 2 ",
        "READS = 1 ",
        Test(
            "tests/simulated/test_storage_loss.py::test_around_its_quota_nothing_is_blocked_and_far_above_it_is_at_once"
        ),
    ),
    Bug(
        "older-read-that-counts",
        "C1",
        "actors/namespace/r14_quota.py",
        "if as_of_us < s.usage.as_of_us:",
        "if as_of_us < 0:",
        Test(
            "tests/simulated/test_storage_loss.py::"
            "test_a_provider_that_measures_seldom_is_read_as_often_as_it_is_asked_and_an_older_read_is_none"
        ),
    ),
)
