"""The breaker: opens at the first failure, waits longer and longer, closes at the first success."""

from amends.runtime.breaker import Breaker
from amends.values.backoff import Backoff


def test_it_opens_waits_longer_and_closes() -> None:
    now = [1_000_000]
    breaker = Breaker("nats:EVENTS", Backoff(100, 400), lambda: now[0])
    assert (breaker.closed, breaker.wait_s, breaker.detail()) == (True, 0.0, {"breaker": "closed"})
    for failures, ceiling_s in ((1, 0.1), (2, 0.2), (3, 0.4), (4, 0.4), (1000, 0.4)):
        while breaker.failures < failures:
            breaker.failed()
        assert not breaker.closed
        assert 0.001 <= breaker.wait_s <= ceiling_s
    now[0] += 5_000
    assert breaker.detail() == {"breaker": "open", "failures": 1000, "open_ms": 5}
    breaker.succeeded()
    assert (breaker.closed, breaker.wait_s) == (True, 0.0)


def test_each_outage_is_counted_once_and_waits_by_itself() -> None:
    breaker = Breaker("postgres", Backoff(1000, 1000), lambda: 0)
    waits = set()
    for outage in range(1, 20):
        breaker.failed()
        waits.add(breaker.wait_s)
        breaker.failed()
        breaker.succeeded()
        assert breaker.opened == outage
    assert len(waits) > 10, "jitter: processes that fell together do not come back together"


def test_its_waits_follow_from_the_seed_alone() -> None:
    def waits(seed: int) -> list[float]:
        breaker = Breaker("nats:EVENTS", Backoff(1000, 60_000), lambda: 0, seed=seed)
        found = []
        for _ in range(6):
            breaker.failed()
            found.append(breaker.wait_s)
        return found

    assert waits(1) == waits(1)
    assert waits(1) != waits(2)


def test_an_outage_that_began_before_the_start_goes_on_where_it_was() -> None:
    before, after = (Breaker("nats:EVENTS", Backoff(1000, 60_000), lambda: 0, seed=3) for _ in range(2))
    for _ in range(5):
        before.failed()
    after.resume(5)
    assert (after.closed, after.opened, after.wait_s) == (False, 1, before.wait_s)
