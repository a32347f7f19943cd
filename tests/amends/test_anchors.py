"""What stands between two runtimes' anchors: nothing, a crash, another runtime, or somebody's own commit."""

import msgspec

from amends.values.anchors import Anchored, Mark, gaps, parsed


def anchor(epoch: int, seq: int, mark: Mark = "", digest: str = "") -> Anchored:
    return Anchored(
        at_us=seq, epoch=epoch, seq=seq, digest=digest or f"d{seq}", audit_seq=1, audit_hash="h", key="k", mark=mark
    )


def told(*anchors: Anchored) -> list[tuple[int, int, str, bool]]:
    return [(gap.first, gap.last, gap.what.partition(":")[0], gap.wrong) for gap in gaps(anchors)]


def test_a_runtime_that_finds_what_the_one_before_left_says_nothing() -> None:
    first = [anchor(1, 1, "opening"), anchor(1, 5), anchor(1, 7, "closing")]
    assert told() == told(first[0]) == told(*first) == []
    assert told(anchor(2, 9), anchor(2, 7, "opening"), *first) == []  # in any order
    assert told(*first, anchor(4, 7, "opening")) == []  # those between have written nothing


def test_turns_after_a_closing_and_before_the_next_opening_are_slipped_in() -> None:
    assert told(anchor(1, 7, "closing"), anchor(2, 9, "opening")) == [(8, 9, "slipped in", True)]
    assert told(anchor(1, 7, "closing"), anchor(2, 7, "opening", "other")) == [(7, 7, "rewritten", True)]


def test_a_head_before_the_one_that_was_left_is_a_cut_tail_after_a_crash_too() -> None:
    for mark in ("closing", "", "opening"):
        assert told(anchor(1, 7, mark), anchor(2, 4, "opening")) == [(5, 7, "tail cut", True)]


def test_what_another_runtime_or_a_crash_left_is_only_not_vouched_for() -> None:
    closing, opening = anchor(1, 7, "closing"), anchor(4, 9, "opening")
    assert told(closing, opening) == [(8, 9, "of epochs 2 to 3, whose anchors are not here", False)]
    # nor where the last one of the runtime is none, or the first of the next is missing
    crash = [(8, 9, "2 that no anchor vouches for", False)]
    assert told(anchor(1, 7), anchor(2, 9, "opening")) == told(anchor(1, 7, "closing"), anchor(2, 9)) == crash


def test_the_line_and_signature_of_an_anchor_without_a_mark_are_as_before_there_were_marks() -> None:
    line = b'{"at_us":7,"audit_hash":"h","audit_seq":1,"digest":"d7","epoch":1,"key":"k","seq":7,"signature":"s"}\n'
    old = parsed(line)
    assert old is not None
    assert old == msgspec.structs.replace(anchor(1, 7), signature="s")
    assert (old.line().encode(), old.signed()) == (line, line.replace(b',"signature":"s"', b"").strip())
    assert b'"mark":"closing"' in anchor(1, 7, "closing").signed()
