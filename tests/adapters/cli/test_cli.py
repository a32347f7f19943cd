"""The command line against a made-up runtime on a real NATS: requests, pages, errors and exit statuses."""

import argparse
import json
import shlex
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from adapters.cli import arguments
from adapters.cli.main import main
from adapters.cli.verbs import LOCAL, all_verbs, command_verbs
from adapters.cli.why import settle_lines
from amends.values.text import command_line
from tests.adapters.cli.conftest import REQUESTS, TRACE, Amends, FakeRuntime

COMMANDS, VERBS = command_verbs(REQUESTS), all_verbs(REQUESTS)
ALLOCATION = "alloc_" + "0" * 26
CASE = "case_" + "0" * 26


async def test_a_command_sends_its_fields_a_key_and_the_local_token(runtime: FakeRuntime, amends: Amends) -> None:
    runtime.answers["cmd.node.register"] = {"node": {"node_id": "n1", "state": "registered", "boot_id": None}}
    said = await amends(
        "node", "register", "n1", "--host", "h", "--port", "2222", "--host-key", "ssh-ed25519 AAAA",
        "--label", "site=a", "--label", "gpu=b=c",
    )  # fmt: skip
    assert said.status == 0, said.err
    (subject, data, headers) = runtime.asked[0]
    assert subject == "cmd.node.register"
    assert data == {
        "node_id": "n1", "ssh": {"host": "h", "port": 2222, "host_key": "ssh-ed25519 AAAA"},
        "labels": {"site": "a", "gpu": "b=c"},
    }  # fmt: skip
    assert len(headers["Idempotency-Key"]) == 32
    assert headers["Authorization"] == "Bearer the local token"
    assert said.out.splitlines() == ["node_id   n1", "state     registered", f"trace_id  {TRACE}"]


async def test_a_key_and_a_version_are_sent_as_given_and_a_file_is_read(
    runtime: FakeRuntime, amends: Amends, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("ssh-ed25519 BBBB\n")
    runtime.answers["cmd.allocation.request"] = {"allocation": {"allocation_id": ALLOCATION}, "accepted_us": 1}
    said = await amends(
        "allocation", "request", "--account", "a1", "--ssh-public-key", f"@{tmp_path / 'key'}", "--rate", "5",
        "--key", "k 1", "--expected-version", "3", "--json",
    )  # fmt: skip
    assert json.loads(said.out) == runtime.answers["cmd.allocation.request"]
    (_, data, headers) = runtime.asked[0]
    assert data == {"account_id": "a1", "ssh_public_key": "ssh-ed25519 BBBB", "rate_uminor_per_hour": 5}
    assert (headers["Idempotency-Key"], headers["Expected-Version"]) == ("k 1", "3")


@pytest.mark.parametrize(
    ("argv", "subject", "data"),
    [
        ("allocation release A", "cmd.allocation.release", {"allocation_id": "A"}),
        ("retry cleanup A --reason r", "ops.cleanup.retry", {"allocation_id": "A", "reason": "r"}),
        ("node retire n1 --reason r --acknowledge-lost", "ops.node.retire",
         {"node_id": "n1", "reason": "r", "acknowledge_lost": True}),
        ("node return-to-service n1 --reason r", "ops.node.return_to_service", {"node_id": "n1", "reason": "r"}),
        ("node update n1 --reason r --host h --port 22 --host-key k", "ops.node.update",
         {"node_id": "n1", "reason": "r", "ssh": {"host": "h", "port": 22, "host_key": "k"}}),
        ("node update n1 --reason r --label a=b", "ops.node.update",
         {"node_id": "n1", "reason": "r", "labels": {"a": "b"}}),
        ("outbox republish --since 2026-01-01T00:00:00Z --reason r", "ops.outbox.republish",
         {"since_us": 1767225600000000, "reason": "r"}),
        ("case resolve C --reason r", "ops.case.resolve", {"case_id": "C", "reason": "r"}),
        ("streams create --reason r", "ops.streams.create", {"reason": "r"}),
    ],
)  # fmt: skip
async def test_verbs_and_their_requests(
    runtime: FakeRuntime, amends: Amends, argv: str, subject: str, data: dict[str, object]
) -> None:
    runtime.answers[subject] = {}
    assert (await amends(*argv.split())).status == 0
    assert runtime.asked[0][:2] == (subject, data)


async def test_a_list_filters_by_typed_columns_and_says_that_there_is_more(
    runtime: FakeRuntime, amends: Amends
) -> None:
    pages = {None: {"items": [{"node_id": "n1", "state": "ready"}], "cursor": "c1"},
             "c1": {"items": [{"node_id": "n2", "state": "ready"}], "cursor": None}}  # fmt: skip
    runtime.answers["qry.node.list"] = lambda data: pages[data.get("cursor")]
    said = await amends("node", "list", "--where", "dirty=true", "--where", "epoch=3", "--where", "state=ready")
    assert runtime.asked[0][1] == {"dirty": True, "epoch": 3, "state": "ready"}
    assert said.out.splitlines()[1].split()[:2] == ["n1", "ready"]
    assert "--cursor c1" in said.err
    said = await amends("node", "list", "--all", "--json")
    assert [row["node_id"] for row in json.loads(said.out)["items"]] == ["n1", "n2"]


async def test_a_list_shows_the_newest_first_since_a_time_without_some_and_sorted(
    runtime: FakeRuntime, amends: Amends
) -> None:
    def page(data: dict[str, Any]) -> dict[str, Any]:
        rows = [{"step_id": f"step_{n}", "name": "ssh.probe" if n % 2 else "ssh.lock", "attempt": -n, "started_us": n}
                for n in range(10)]  # fmt: skip
        rows = rows[::-1] if data.get("order") == "newest" else rows
        start = int(data.get("cursor") or 0)
        return {"items": rows[start : start + 4], "cursor": str(start + 4) if start + 4 < len(rows) else None}

    runtime.answers["qry.step.list"] = page
    ids = [line.split()[0] for line in (await amends("step", "list", "--limit", "4")).out.splitlines()[1:]]
    assert ids == ["step_9", "step_8", "step_7", "step_6"]
    ids = [line.split()[0] for line in (await amends("step", "list", "--since", "5")).out.splitlines()[1:]]
    assert ids == ["step_9", "step_8", "step_7", "step_6", "step_5"]
    said = await amends("--json", "step", "list", "--all", "--oldest", "--where", "name!=ssh.lock", "--sort", "attempt")
    assert [row["step_id"] for row in json.loads(said.out)["items"]] == [
        "step_9",
        "step_7",
        "step_5",
        "step_3",
        "step_1",
    ]


@pytest.mark.parametrize(("entity", "identifier", "began"), [
    ("failure", "failure_id", "timestamp"), ("recovery_run", "recovery_id", "started_at"),
    ("compensation", "recovery_trace_id", "timestamp"),
])  # fmt: skip
async def test_a_list_of_records_whose_time_is_a_text_is_asked_for_since_a_time_too(
    runtime: FakeRuntime, amends: Amends, entity: str, identifier: str, began: str
) -> None:
    days = [{identifier: f"x{day}", began: f"2026-01-0{day}T00:00:00.000000Z"} for day in (3, 2, 1)]
    runtime.answers[f"qry.{entity}.list"] = lambda data: {"items": days, "cursor": None}
    said = await amends("--json", entity.replace("_", "-"), "list", "--since", "2026-01-02")
    assert [row[identifier] for row in json.loads(said.out)["items"]] == ["x3", "x2"]


async def test_a_list_since_a_time_goes_on_behind_what_is_left_out_or_has_not_begun(
    runtime: FakeRuntime, amends: Amends
) -> None:
    told = (("s4", "a", None), ("s3", "b", 30), ("s2", "a", 20), ("s1", "a", 1))
    rows = [{"step_id": step_id, "name": name, "started_us": began} for step_id, name, began in told]

    def page(data: dict[str, Any]) -> dict[str, Any]:
        start = int(data.get("cursor") or 0)
        return {"items": rows[start : start + 1], "cursor": str(start + 1) if start < 3 else None}

    runtime.answers["qry.step.list"] = page
    said = await amends("--json", "step", "list", "--since", "10", "--where", "name!=b")
    assert [row["step_id"] for row in json.loads(said.out)["items"]] == ["s4", "s2"]


async def test_an_id_is_accepted_by_its_beginning_where_one_alone_begins_so(
    runtime: FakeRuntime, amends: Amends
) -> None:
    one, two = "alloc_01aaa" + "0" * 21, "alloc_01abb" + "0" * 21
    runtime.answers["qry.allocation.list"] = lambda data: {
        "items": [{"allocation_id": each} for each in (one, two) if each.startswith(data["id_prefix"])]
    }
    runtime.answers["qry.allocation.get"] = lambda data: {"allocation_id": data["id"]}
    runtime.answers["cmd.allocation.release"] = lambda data: {"allocation": data}
    assert one in (await amends("allocation", "show", "alloc_01aa")).out
    assert two in (await amends("allocation", "release", "alloc_01ab")).out
    said = await amends("allocation", "release", "alloc_01a")
    assert (said.status, "begins more than one id" in said.err) == (1, True)


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"], {}, ()) == 0
    assert capsys.readouterr().out == f"amends {version('amends')}\n"


async def test_cases_are_listed_while_they_wait(runtime: FakeRuntime, amends: Amends) -> None:
    runtime.answers["ops.case.list"] = lambda data: {"items": [{"case_id": CASE, "state": data.get("state", "any")}]}
    said = await amends("case", "list", "--json")
    assert [row["state"] for row in json.loads(said.out)["items"]] == ["open", "retrying"]
    # the lists of both states are shown whole: no cursor stands for two of them
    pages = {None: {"items": [{"case_id": "case_1", "state": "open"}], "cursor": "c1"},
             "c1": {"items": [{"case_id": "case_2", "state": "open"}], "cursor": None}}  # fmt: skip
    runtime.answers["ops.case.list"] = lambda data: (
        pages[data.get("cursor")] if data.get("state") == "open" else {"items": []}
    )
    said = await amends("case", "list", "--json")
    found = json.loads(said.out)
    assert ([row["case_id"] for row in found["items"]], found["cursor"]) == (["case_1", "case_2"], None)
    said = await amends("case", "list", "--limit", "1")
    assert ("case_2" in said.out, said.err) == (False, "amends: there are more: --all\n")
    runtime.answers["ops.case.list"] = lambda data: {"items": [{"case_id": CASE, "state": data.get("state", "any")}]}
    said = await amends("case", "list", "--where", "kind=node_flapping", "--json")
    assert [row["state"] for row in json.loads(said.out)["items"]] == ["any"]


async def test_a_refusal_is_one_line_with_its_code_and_what_to_do(runtime: FakeRuntime, amends: Amends) -> None:
    runtime.answers["qry.node.get"] = {"code": "not_found", "http": 404, "message": "no \x1b[31mn1", "retryable": False}
    said = await amends("node", "show", "n1")
    assert (said.status, said.out) == (1, "")
    assert said.err == "amends: not_found: no ?[31mn1 (look for it with `list`)\n"


async def test_a_refusal_for_now_names_the_key_to_use_again(runtime: FakeRuntime, amends: Amends) -> None:
    runtime.answers["cmd.allocation.release"] = {"code": "draining", "message": "stopping", "retryable": True}
    said = await amends("allocation", "release", ALLOCATION)
    assert said.status == 1
    assert f"with --key {runtime.asked[0][2]['Idempotency-Key']}" in said.err


async def test_no_answer_says_that_it_may_have_been_done(runtime: FakeRuntime, amends: Amends) -> None:
    runtime.answers["cmd.allocation.release"] = lambda _: None
    said = await amends("allocation", "release", ALLOCATION, "--timeout", "0.2")
    assert said.status == 3
    assert f"may have been done: send it again with --key {runtime.asked[0][2]['Idempotency-Key']}" in said.err


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"ok": true}', b'{"ok": false}'])
async def test_an_answer_that_is_none_is_no_success(runtime: FakeRuntime, amends: Amends, answer: bytes) -> None:
    runtime.answers["qry.node.get"] = answer
    assert (await amends("node", "show", "n1")).status == 3


async def test_unreachable_is_three_and_shows_no_password(amends: Amends, tmp_path: Path) -> None:
    said = await amends("tree", "--nats", "nats://user:secret@127.0.0.1:1")
    assert said.status == 3
    assert "127.0.0.1:1" in said.err
    assert "secret" not in said.err
    said = await amends("tree", "--state-dir", str(tmp_path))
    assert said.status == 3
    assert "amends run" in said.err


async def test_nobody_there_is_three_and_says_what_to_start(runtime: FakeRuntime, amends: Amends) -> None:
    await runtime.leave()
    said = await amends("tree")
    assert said.status == 3
    assert "no runtime answers ops.tree.show" in said.err


async def test_the_local_token_goes_to_nobody_else(
    runtime: FakeRuntime, amends: Amends, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = runtime.url.replace("127.0.0.1", "localhost")
    await amends("tree", "--nats", other)
    assert "Authorization" not in runtime.asked[0][2]
    monkeypatch.setenv("AMENDS_NATS_SERVERS", other)
    monkeypatch.setenv("AMENDS_TOKEN", "mine")
    await amends("tree")
    assert runtime.asked[1][2]["Authorization"] == "Bearer mine"


async def test_the_tree_and_the_matrix_are_drawn(runtime: FakeRuntime, amends: Amends) -> None:
    leaf = {"name": "writer", "state": "running", "restarts": 0, "children": []}
    runtime.answers["ops.tree.show"] = {
        "tree": {"name": "amends", "state": "running", "children": [leaf, leaf | {"name": "relay"}]}
    }
    said = await amends("tree")
    assert said.out.splitlines() == [
        "amends  running", "├─ writer  running  restarts=0", "└─ relay  running  restarts=0",
    ]  # fmt: skip
    row = {"id": "R01", "name": "outbox publish", "status": "built", "entity": "outbox", "runs": 2, "open": 0}
    runtime.answers["ops.matrix.show"] = {"version": "v", "sha256": "f" * 64, "rows": [row]}
    said = await amends("matrix")
    assert said.out.splitlines()[2].split()[:3] == ["R01", "outbox", "publish"]


async def test_a_case_shows_its_runbook_and_the_commands(runtime: FakeRuntime, amends: Amends) -> None:
    case = {
        "case_id": CASE, "kind": "cleanup_exhausted", "target_ref": f"allocation:{ALLOCATION}", "state": "open",
        "commands": ["ops.cleanup.retry", "ops.node.retire"], "evidence": {"node_id": "n1"},
    }  # fmt: skip
    runtime.answers["ops.case.show"] = {"case": case, "runbook": "# What happened\nthis"}
    said = await amends("case", "show", CASE)
    assert f'  amends retry cleanup {ALLOCATION} --reason "…"' in said.out.splitlines()
    assert '  amends node retire n1 --reason "…" --acknowledge-lost' in said.out.splitlines()
    assert said.out.endswith("# What happened\nthis\n")


async def test_why_tells_an_allocations_story_on_one_screen(runtime: FakeRuntime, amends: Amends) -> None:
    ref = f"allocation:{ALLOCATION}"
    answers = runtime.answers
    answers["qry.allocation.get"] = {"allocation_id": ALLOCATION, "state": "released", "node_id": "n1"}
    answers["qry.step.list"] = {"items": [{"step_id": "step_1", "name": "ssh.user-remove", "state": "failed"}]}
    run = {"recovery_id": "recov_1", "recovery_trace_id": TRACE, "matrix_row": "R04", "final_outcome": None}
    answers["qry.recovery_run.list"] = {"items": [run]}
    answers["qry.failure.list"] = {"items": [{"code": "ssh_connect_failed", "message": "refused"}]}
    answers["qry.recovery_action.list"] = {"items": [{"sequence": 1, "action_type": "retry", "outcome": "failure"}]}
    answers["qry.compensation.list"] = {"items": [{"sequence": 2, "compensation_type": "compensate"}]}
    answers["qry.debt.list"] = {"items": [{"debt_id": "debt_1", "node_id": "n1", "kind": "user"}]}
    case = {"case_id": CASE, "kind": "cleanup_exhausted", "target_ref": ref, "state": "open",
            "commands": '["ops.cleanup.retry"]'}  # fmt: skip
    answers["qry.ops_case.list"] = {"items": [case]}
    said = await amends("why", ALLOCATION)
    assert said.status == 0, said.err
    for words in (ref, "ssh.user-remove", "Recovery R04: open", "ssh_connect_failed", "retry", "compensate",
                  "debt_1", CASE, f'amends retry cleanup {ALLOCATION} --reason "…"'):  # fmt: skip
        assert words in said.out, words
    assert ("qry.step.list", {"entity": ref, "limit": 500}) in [asked[:2] for asked in runtime.asked]
    assert "left out" not in said.out
    story = json.loads((await amends("why", ALLOCATION, "--json")).out)
    assert story["runs"][0]["actions"][0]["action_type"] == "retry"


async def test_why_shows_what_is_open_and_the_newest_and_says_how_much_is_left_out(
    runtime: FakeRuntime, amends: Amends
) -> None:
    # given a node with a long life, of which the first run, step and case are still open
    def listed(made: Callable[[int], dict[str, Any]], count: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
        def page(data: dict[str, Any]) -> dict[str, Any]:
            begin = int(data.get("cursor", 0))
            end = min(begin + 300, count)
            return {"items": [made(n) for n in range(begin, end)], "cursor": str(end) if end < count else None}

        return page

    runtime.answers |= {
        "qry.node.get": {"node_id": "n1", "state": "quarantined"},
        "qry.step.list": listed(
            lambda n: {"step_id": f"step_{n}.", "started_us": n, "state": "intended" if n == 0 else "done"}, 1000
        ),
        "qry.recovery_run.list": listed(
            lambda n: {"recovery_trace_id": f"trace{n}.", "started_at": f"{n:04}", "ended_us": n or None,
                       "final_outcome": "recovered" if n else None}, 40
        ),
        "qry.recovery_action.list": listed(lambda n: {"sequence": n, "action_type": "retry"}, 201),
        "qry.ops_case.list": lambda data: {"items": []} if "recovery_trace_id" in data else listed(
            lambda n: {"case_id": f"case_{n}.", "opened_us": n, "state": "resolved" if n else "retrying",
                       "kind": "node_flapping", "target_ref": "node:n1", "commands": '["ops.node.retire"]'}, 25
        )(data),
    }  # fmt: skip
    # when
    said = await amends("why", "n1")
    # then
    assert said.status == 0, said.err
    assert [n for n in range(1000) if f"step_{n}." in said.out] == [0, *range(800, 1000)]
    assert [n for n in range(40) if f"trace{n}." in said.out] == [0, *range(30, 40)]
    assert [n for n in range(25) if f"case_{n}." in said.out] == [0, *range(5, 25)]
    for heading in ("Steps (799 earlier steps left out)", "Recoveries (29 earlier runs left out)",
                    "Cases (4 earlier cases left out)", "Actions (1 earlier actions left out)"):  # fmt: skip
        assert heading in said.out.splitlines()
    assert '  amends node retire n1 --reason "…"' in said.out.splitlines()
    story = json.loads((await amends("why", "n1", "--json")).out)
    assert story["earlier"] == {"steps": 799, "runs": 29, "cases": 4}


async def test_why_shows_what_failed_steps_said_whole_and_not_of_all_of_them(
    runtime: FakeRuntime, amends: Amends
) -> None:
    # given a node whose probes fail, with words that no column holds
    words = "useradd: cannot lock /etc/passwd; try again later.; " + "x" * 700 + " the end\x1b[2J"
    runtime.answers["qry.node.get"] = {"node_id": "n1", "state": "registered"}
    steps = [
        {"step_id": f"step_{n}", "name": "ssh.probe", "state": "failed", "code": f"code_{n}", "started_us": n,
         "message": words}
        for n in range(12)
    ]  # fmt: skip
    steps.append({"step_id": "step_12", "name": "ssh.probe", "state": "done", "started_us": 12})
    runtime.answers["qry.step.list"] = {"items": steps}
    said = (await amends("why", "n1")).out.splitlines()
    # then each try has its code, and the newest their words
    assert "What failed steps said (the newest 10 of 12)" in said
    shown = [line for line in said if line.endswith(words.replace("\x1b", "?"))]
    assert [line.split("ssh.probe  ")[1].split(":")[0] for line in shown] == [f"code_{n}" for n in range(2, 12)]
    assert any("code_0" in line for line in said)


@pytest.mark.parametrize("name", ["meter", "alloc", "case_1", "evt_main"])
async def test_why_finds_a_node_whose_name_begins_like_an_id(runtime: FakeRuntime, amends: Amends, name: str) -> None:
    none = {"code": "not_found", "message": "none"}
    runtime.answers |= {f"qry.{entity}.get": none for entity in ("meter", "allocation", "ops_case", "outbox")}
    runtime.answers["qry.node.get"] = lambda data: {"node_id": data["id"], "state": "ready"}
    said = await amends("why", name)
    assert said.out.splitlines()[:1] == [f"node:{name}"], said.err


async def test_why_of_a_node_leads_on_to_what_it_owes(runtime: FakeRuntime, amends: Amends) -> None:
    runtime.answers["qry.node.get"] = {"node_id": "n1", "state": "quarantined"}
    runtime.answers["qry.debt.list"] = {"items": [{"debt_id": "debt_1", "allocation_id": ALLOCATION}]}
    assert f"  amends why {ALLOCATION}" in (await amends("why", "n1")).out.splitlines()


@pytest.mark.parametrize("identifier", [CASE, TRACE, "n1", "node:n1", "recov_1", "fail_1"])
async def test_why_finds_the_entity_that_an_id_is_about(runtime: FakeRuntime, amends: Amends, identifier: str) -> None:
    runtime.answers |= {
        "qry.ops_case.get": {"case_id": CASE, "target_ref": "node:n1"},
        "qry.recovery_run.list": lambda data: {
            "items": [{"entity": "node:n1", "recovery_trace_id": TRACE}] if "recovery_trace_id" in data else []
        },
        "qry.recovery_run.get": {"entity": "node:n1"},
        "qry.failure.get": {"recovery_trace_id": TRACE},
        "qry.node.get": {"node_id": "n1", "state": "ready"},
    }
    said = await amends("why", identifier)
    assert said.out.splitlines()[0] == "node:n1", said.err


async def test_why_of_nothing_known_is_refused(runtime: FakeRuntime, amends: Amends) -> None:
    for entity in ("node", "account", "namespace"):
        runtime.answers[f"qry.{entity}.get"] = {"code": "not_found", "message": "none"}
    said = await amends("why", "nobody")
    assert (said.status, said.err[:28]) == (1, "amends: not_found: nothing i")


async def test_filters_may_be_null_or_json(runtime: FakeRuntime, amends: Amends) -> None:
    said = await amends("node", "list", "--where", 'labels={"zone": "a"}', "--where", "boot_id=null", "--json")
    assert said.status == 0
    assert runtime.asked[-1][1] == {"labels": {"zone": "a"}, "boot_id": None}
    said = await amends("node", "list", "--where", "labels={zone}")
    assert (said.status, "no JSON" in said.err) == (2, True)


async def test_a_verification_that_fails_is_a_refusal(runtime: FakeRuntime, amends: Amends) -> None:
    runtime.answers["ops.audit.verify"] = {"valid": False, "entries": 3, "problem": "gap"}
    said = await amends("audit", "verify")
    assert said.status == 1
    assert "gap" in said.out


async def test_local_verbs_are_called_with_what_was_typed(amends: Amends) -> None:
    seen: list[argparse.Namespace] = []

    def agent(typed: argparse.Namespace) -> int:
        seen.append(typed)
        return 7

    said = await amends("agent", "--node", "n1", "--nats", "u", "--state", "d", local={"agent": agent})
    assert said.status == 7
    assert (seen[0].node, seen[0].nats, seen[0].state, seen[0].interval_ms) == ("n1", "u", Path("d"), 5000)
    said = await amends("simulate")
    assert said.status == 2
    assert "not part of this release" in said.err


@pytest.mark.parametrize(
    "argv", ["", "dance", "node", "node drain n1", "node list --where x", "node list --where epoch=x",
             "outbox republish --since soon --reason r", "node register n1 --host h"]
)  # fmt: skip
async def test_usage_is_two_and_says_why(runtime: FakeRuntime, amends: Amends, argv: str) -> None:
    said = await amends(*argv.split())
    assert said.status == 2
    assert said.err
    assert runtime.asked == []


def test_every_verb_has_help_and_no_option_means_two_things(capsys: pytest.CaptureFixture[str]) -> None:
    for words in [one.words for one in LOCAL] + [one.words for one in VERBS]:
        with pytest.raises(SystemExit) as ended:
            arguments.parser([one.words for one in LOCAL], VERBS).parse_args([*words.split(), "--help"])
        assert ended.value.code == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "argv", ["", "-x", "--help", "dance", "node", "node --help", "node dance", "--json node show", "node show n1 n2"]
)
def test_the_verbs_that_can_be_meant_say_the_same_as_all(capsys: pytest.CaptureFixture[str], argv: str) -> None:
    said = []
    for typed in ((), argv.split()):
        with pytest.raises(SystemExit) as ended:
            arguments.parser([one.words for one in LOCAL], VERBS, typed).parse_args(argv.split())
        said.append((ended.value.code, capsys.readouterr()))
    assert said[0] == said[1]


def test_every_operators_change_asks_for_a_reason() -> None:
    assert [verb.words for verb in COMMANDS if verb.subject.startswith("ops.")] == [
        verb.words for verb in COMMANDS if any(field.name == "reason" for field in verb.fields)
    ]


async def test_why_of_a_label_tells_its_case_though_no_table_has_it(runtime: FakeRuntime, amends: Amends) -> None:
    label = "a b;touch x/stored$(id)"
    case = {"case_id": CASE, "kind": "mass_offline", "target_ref": f"domain:{label}", "state": "open",
            "commands": ["ops.detector.confirm"], "opened_us": 1}  # fmt: skip
    runtime.answers["qry.domain.get"] = None  # nobody answers that
    runtime.answers["qry.ops_case.list"] = lambda data: {
        "items": [case] if data.get("target_ref", case["target_ref"]) == case["target_ref"] else [], "cursor": None
    }  # fmt: skip
    runtime.answers["ops.case.show"] = {"case": case, "runbook": "look at the switch"}
    line = f"""amends detector confirm --reason "…" --domain '{label}'"""
    for words in (("why", f"domain:{label}"), ("case", "show", CASE)):
        said = await amends(*words)
        assert (said.status, line in said.out) == (0, True), (said.out, said.err)


@pytest.mark.parametrize("bad", ["$(touch x)", "`id`", "a; b", "a\nb", "'", "a\x1b[201~b", "\u202eb"])
async def test_a_line_to_be_copied_is_one_command_whatever_its_values_hold(bad: str) -> None:
    typed = command_line("allocation", "list", where={"state": bad})
    if bad.isprintable():
        assert shlex.split(typed) == ["amends", "allocation", "list", "--where", f"state={bad}"]
    else:
        assert typed == ""
    evidence = {"customer": bad}
    case = {"case_id": CASE, "kind": "x", "target_ref": f"domain:{bad}", "state": "open", "evidence": evidence,
            "commands": ["ops.detector.confirm", "cmd.account.create"]}  # fmt: skip
    for line in settle_lines(case, {}, all_verbs(REQUESTS)):
        words = shlex.split(line)
        assert words[0] == "amends"
        assert (bad in words) == bad.isprintable()
