"""Parts of the console that need no runtime: sessions, the waterfall, how values are shown."""

from adapters.http.console.ports import Operator
from adapters.http.console.render import cell, href, money, plain
from adapters.http.console.sessions import IDLE_S, LINK_S, LONGEST_S, MOST, Sessions
from adapters.http.console.waterfall import WIDTH, waterfall

OLGA = Operator("olga", "operator")


class Clock:
    """As late as it is told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_session_ends_when_nobody_uses_it_and_in_any_case_after_a_day() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    idle, used = sessions.open("token", OLGA), sessions.open("token", OLGA)
    while clock.now + IDLE_S / 2 < LONGEST_S:
        clock.now += IDLE_S / 2
        assert sessions.find(used) is not None
    assert sessions.find(idle) is None
    open_only = sessions.open("token", OLGA)
    clock.now += IDLE_S
    assert sessions.find(open_only, used=False) is not None
    clock.now += 1
    assert sessions.find(open_only, used=False) is None
    clock.now = LONGEST_S + 1
    assert sessions.find(used) is None
    assert sessions.find("") is None


def test_only_so_many_are_remembered() -> None:
    sessions = Sessions(Clock())
    first = sessions.open("token", OLGA)
    others = [sessions.open("token", OLGA) for _ in range(MOST)]
    assert sessions.find(first) is None
    assert sessions.find(others[0]) is not None


def test_a_link_is_spent_by_its_use_and_by_time() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    used, late = sessions.link("token"), sessions.link("token")
    assert sessions.is_good(used)
    assert (sessions.redeem(used), sessions.redeem(used)) == ("token", "")
    clock.now = LINK_S + 1
    assert not sessions.is_good(late)
    assert sessions.redeem(late) == ""


def test_a_run_is_drawn_in_the_order_of_the_doing_within_its_time() -> None:
    run = {"started_us": 1_000_000, "ended_us": 3_000_000}
    failed = [{"code": "ssh_step_failed", "ref": "x", "severity": "error", "timestamp": "1970-01-01T00:00:01.000000Z"}]
    actions = [{"sequence": 1, "action_type": "retry", "target_ref": "x", "outcome": "failure", "duration_ms": 500,
                "at_us": 2_000_000}]  # fmt: skip
    undone = [
        {"sequence": 3, "compensation_type": "reverse", "compensated_action_type": "side_effect", "target_ref": "x",
         "outcome": "success", "duration_ms": None, "at_us": 3_000_000, "compensation_id": "comp_2",
         "metadata": {"supersedes": "comp_1"}},
        {"sequence": 2, "compensation_type": "compensate", "compensated_action_type": "side_effect", "target_ref": "x",
         "outcome": "partial", "duration_ms": 0, "at_us": 2_500_000, "compensation_id": "comp_1", "metadata": {}},
    ]  # fmt: skip
    bars = waterfall(run, failed, actions, undone)
    assert [(bar.kind, bar.outcome, bar.superseded) for bar in bars] == [
        ("failure", "error", False), ("action", "failure", False), ("compensation", "partial", True),
        ("compensation", "success", False),
    ]  # fmt: skip
    assert [(bar.x, bar.width) for bar in bars][:2] == [(0, 4), (250, 250)]
    assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH for bar in bars)
    assert waterfall({}, [], [], []) == []


def test_values_are_shown_as_their_names_say_and_never_as_markup() -> None:
    assert str(cell({"node_id": "<b>"}, "node_id")) == '<a href="/nodes/%3Cb%3E">&lt;b&gt;</a>'
    assert str(cell({"state": '"><i>'}, "state")) == '<span class="s s-i">&#34;&gt;&lt;i&gt;</span>'
    assert 'datetime="1970-01-01T00:00:01+00:00"' in str(cell({"at_us": 1_000_000}, "at_us"))
    assert str(cell({"at_us": 10**30}, "at_us")) == str(10**30)
    assert str(cell({}, "reason")) == "–"
    assert len(plain("x" * 100_000)) < 3_000
    assert plain({"b": 1, "a": [True]}) == '{"a": [true], "b": 1}'
    assert (money(123_456, 2), money(5, 0), money(5, None), money(None, 2)) == (
        "1,234.56",
        "5",
        "5 minor units of",
        "–",
    )
    assert href("target_ref", "node:n1/user:am-x") == "/nodes/n1"
    assert href("entity", "allocation:alloc_1") == "/allocations/alloc_1"
    assert href("entity", "unknown:x") == ""
    assert plain("a\u202eb\x00c\nd") == "a?b?c\nd"
