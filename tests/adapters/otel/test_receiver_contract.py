"""One contract for receivers of spans, over real HTTP and simulated: what the exporter may rely on."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest
from msgspec import Struct

from adapters.otel.environment import Target, traces_url
from adapters.otel.http import OtlpHttp
from adapters.simulated.receiver import Collector, CollectorConnection
from amends.ports.spans import NotAccepted, SpanReceiver, Taken
from tests.adapters.otel.receiver import Receiver


class Hands(Protocol):
    """What both can be told."""

    status: int
    room: int
    rejects: int
    poison: str

    @property
    def spans(self) -> Any: ...


class Bench(Struct):
    receiver: SpanReceiver
    hands: Hands
    wait: Any
    leave: Any

    def arrived(self) -> list[str]:
        return [span["span_id"] for span in self.hands.spans]


def row(number: int, name: str = "ssh.probe") -> dict[str, Any]:
    return {
        "trace_id": "a" * 32, "span_id": f"{number:016x}", "parent_span_id": None, "name": name, "kind": "CLIENT",
        "start_us": number, "end_us": number + 1, "status": "UNSET", "status_message": "", "attributes": {},
        "events": [], "links": [], "resource": None, "jseq": number,
    }  # fmt: skip


@pytest.fixture
async def real() -> AsyncIterator[Bench]:
    receiver = Receiver()
    await receiver.start()
    async with OtlpHttp(Target(traces_url(receiver.url, {}))) as taking:
        yield Bench(taking, receiver, lambda: setattr(receiver, "retry_after", "7"), receiver.stop)
    await receiver.stop()


@pytest.fixture
async def simulated() -> Bench:
    collector = Collector()

    async def leave() -> None:
        collector.away = True

    return Bench(CollectorConnection(collector), collector, lambda: setattr(collector, "wait_s", 7.0), leave)


@pytest.fixture(params=["real", "simulated"])
def bench(request: pytest.FixtureRequest) -> Bench:
    found: Bench = request.getfixturevalue(request.param)
    return found


async def test_what_is_acknowledged_has_arrived_in_its_order(bench: Bench) -> None:
    assert await bench.receiver.take([row(2), row(1)]) == Taken()
    assert await bench.receiver.take([row(3)]) == Taken()
    assert bench.arrived() == [f"{number:016x}" for number in (2, 1, 3)]


@pytest.mark.parametrize("status", [429, 503, 500, 401])
async def test_a_refusal_that_passes_may_name_its_time_and_keeps_nothing(bench: Bench, status: int) -> None:
    bench.hands.status = status
    bench.wait()
    with pytest.raises(NotAccepted) as refused:
        await bench.receiver.take([row(1)])
    assert (refused.value.for_good, refused.value.wait_s) == (False, 7.0 if status in (429, 503) else 0.0)
    assert bench.arrived() == []


async def test_what_is_too_large_or_bad_is_refused_for_good_as_it_is(bench: Bench) -> None:
    bench.hands.room, bench.hands.poison = 1, "bad"
    for rows in ([row(1), row(2)], [row(3, "bad")]):
        with pytest.raises(NotAccepted) as refused:
            await bench.receiver.take(rows)
        assert refused.value.for_good
    assert await bench.receiver.take([row(1)]) == Taken()
    assert bench.arrived() == [f"{1:016x}"]


async def test_a_request_may_be_taken_with_some_of_its_spans_rejected(bench: Bench) -> None:
    bench.hands.rejects = 1
    assert (await bench.receiver.take([row(1), row(2)])).rejected == 1


async def test_where_nobody_listens_the_system_says_so(bench: Bench) -> None:
    await bench.leave()
    with pytest.raises(OSError, match=r"Cannot connect|nobody listens"):
        await bench.receiver.take([row(1)])
