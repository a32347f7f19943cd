"""Tables that fit, and values that cannot move a cursor."""

from adapters.cli import tables

ROWS = [{"node_id": "n" * 20, "message": "word " * 30, "since_us": 1_767_225_600_123_456, "dirty": True, "code": None}]


def test_without_a_width_nothing_is_cut() -> None:
    text = tables.table(ROWS, ["node_id", "message", "since_us", "dirty", "code"])
    assert text.splitlines()[0].split() == ["node_id", "message", "since", "dirty", "code"]
    assert "word " * 29 in text
    assert "2026-01-01 00:00:00.123Z  yes    -" in text


def test_text_is_cut_before_ids_are() -> None:
    lines = tables.table(ROWS, ["node_id", "message"], 60).splitlines()
    assert max(map(len, lines)) <= 60
    assert "n" * 20 in lines[1]
    assert lines[1].endswith("…")
    narrow = tables.table(ROWS, ["node_id", "message"], 18).splitlines()
    assert max(map(len, narrow)) <= 18


def test_at_80_columns_ids_are_whole_and_the_last_columns_go() -> None:
    row = {"recovery_id": "recov_" + "0" * 26, "matrix_row": "R02", "entity": "allocation:alloc_" + "0" * 26,
           "final_outcome": "recovered", "started_at": "2026-01-01", "ended_at": "2026-01-01"}  # fmt: skip
    lines = tables.table([row], list(row), 90).splitlines()
    assert max(map(len, lines)) <= 90
    assert row["recovery_id"] in lines[1]
    assert row["entity"] in lines[1]
    assert "ended_at" not in lines[0]


def test_no_rows_say_so() -> None:
    assert tables.table([], ["node_id"]) == "(none)"


def test_controls_and_hidden_characters_are_not_printed() -> None:
    assert tables.shown("x", "a\x1b]0;b\x07\nc\u202ed") == "a?]0;b??c?d"
    assert tables.shown("labels", {"site": "a"}) == "site=a"
    assert tables.shown("x", [{"a": [1]}]) == '[{"a": [1]}]'
    assert tables.moment(10**30) == str(10**30)
