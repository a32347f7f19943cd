"""A decision as data: its ids are derived, unique, and sort as they were made."""

from amends.domain.kinds import ActorKind, ActorState
from amends.turn.context import Context
from amends.turn.decision import Decision, text
from amends.turn.messages import Envelope
from amends.values.limits import Limits

KIND = ActorKind(name="thing", state_type=ActorState, states={}, transitions={}, handlers={})
CONTEXT = Context((), epoch=1, limits=Limits({}))


def decision(seed: bytes) -> Decision:
    return Decision(KIND, "t1", None, Envelope(None), CONTEXT, 1_768_478_400_000_000, seed)


def test_ids_of_one_turn_sort_as_they_were_made() -> None:
    for number in range(50):
        one = decision(bytes([number]) * 16)
        made = [one.mint("evt") for _ in range(300)]
        assert made == sorted(made)
        assert len(set(made)) == 300


def test_the_same_seed_gives_the_same_ids_and_another_one_others() -> None:
    first, again, other = decision(b"a" * 16), decision(b"a" * 16), decision(b"b" * 16)
    mine = [first.mint("evt") for _ in range(2000)]
    assert mine == [again.mint("evt") for _ in range(2000)]
    assert not set(mine) & {other.mint("evt") for _ in range(2000)}
    assert len(set(mine)) == 2000


def test_a_set_is_written_in_one_order_whatever_the_hash_seed() -> None:
    names = [f"case_{number}" for number in range(50)]
    assert text(frozenset(names)) == text(sorted(names))
