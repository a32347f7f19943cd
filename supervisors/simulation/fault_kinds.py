"""The kinds of faults of a random world: what begins, on what, and how it is over.

Each has a name of its own. One that `waits` meets somebody only when the thing it is laid on is next used; all others
are there at once.
"""

import random
from collections.abc import Callable
from typing import Final, Literal

from msgspec import Struct

from adapters.simulated.faults import FaultQueue, Links
from adapters.simulated.machines import Machine
from adapters.simulated.providers import Provider
from adapters.simulated.stripe_faults import FaultKind as Trouble
from adapters.simulated.stripe_faults import StripeFault
from amends.ports.journal import Commit
from amends.values.errors import Refused
from supervisors.simulation.storm import Storm
from supervisors.simulation.world import World

Of = Literal["machine", "provider", "world"]
SSH_OPS: Final = ("probe", "user-create", "key-install", "user-lock", "user-remove")
AGENT_OPS: Final = ("reconcile", "mount", "unmount", "probe_mount")
PROVIDER_OPS: Final = ("grant", "revoke", "verify", "usage")
HOUR_US: Final = 3_600_000_000
STRIPE_ERRORS: Final[tuple[Trouble, ...]] = (
    "error", "stored_error", "done_stored_error", "cut", "cut_before", "rate_limit", "in_flight",
)  # fmt: skip
STREAMS: Final = ("AMENDS_EVT", "AMENDS_NTF")


class Sky(Struct):
    """What a fault may reach: the world, and the points and links of the runtime that runs now."""

    world: World
    chance: random.Random
    storm: Storm
    links: Links
    repeats: bool = False  # Stripe tells of things more than once
    reorders: bool = False  # … and not in their order


class Spell(Struct):
    """A fault that is there: on what, from when, until when it stays (virtual seconds)."""

    kind: str
    target: str
    began_s: float
    ends_s: float


class FaultKind(Struct, frozen=True, kw_only=True):
    """`begins` and `ends` are told the sky and the target; `stays`: how long, as a share of the usual (0: no time)."""

    name: str
    what: str
    of: Of
    begins: Callable[[Sky, str], str | None]
    ends: Callable[[Sky, str], None] | None = None
    stays: float = 1.0
    waits: bool = False
    weight: int = 2


def _machine(sky: Sky, target: str) -> Machine:
    return sky.world.machine(target)


def _provider(sky: Sky, target: str) -> Provider:
    return sky.world.provider(target)


def _laid(name: str, *kinds: tuple[str, tuple[str, ...]], times: int = 3) -> Callable[[Sky, str], str | None]:
    """Something that is laid on one op of a machine or a provider, so that its next uses meet it."""

    def begins(sky: Sky, target: str) -> str:
        kind, ops = sky.chance.choice(kinds)
        op, count = sky.chance.choice(ops), sky.chance.randint(1, times)
        thing: Machine | Provider = sky.world.providers.providers.get(target) or _machine(sky, target)
        thing.laid.add(op, kind, count, name)
        return f"{op} {kind} ×{count}"

    return begins


def _off(name: str) -> tuple[Callable[[Sky, str], None], Callable[[Sky, str], None]]:
    """A flag of a machine that is lowered, and raised again."""
    return (lambda sky, target: setattr(_machine(sky, target), name, False),
            lambda sky, target: setattr(_machine(sky, target), name, True))  # fmt: skip


def _reboot(sky: Sky, target: str) -> None:
    _machine(sky, target).boot_id = f"boot-{sky.chance.getrandbits(32):08x}"


def _other_key(sky: Sky, target: str) -> None:
    for op in SSH_OPS:
        _machine(sky, target).laid.add(op, "other_key", 1000, "host-key-changed")


def _stream_gone(sky: Sky, target: str) -> str:
    stream = sky.chance.choice(STREAMS)
    sky.world.bus.delete(stream)
    return stream


def _streams_back(sky: Sky, target: str) -> None:
    for stream in sorted(sky.world.bus.missing):
        sky.world.bus.create(stream)


def _full(sky: Sky, target: str) -> str:
    stream = sky.chance.choice(STREAMS)
    sky.world.bus.full.add(stream)
    return stream


def _unheard(sky: Sky, target: str) -> None:
    lost = random.Random(sky.chance.getrandbits(32))  # noqa: S311 - a simulated world's
    sky.world.bus.unheard = lambda message: lost.random() < 0.5


def _lose_reply(sky: Sky, target: str) -> None:
    sky.storm.lose_in = sky.chance.randint(1, 4)


def _refuse_one(sky: Sky, target: str) -> None:
    def refuse(commit: Commit) -> Exception | None:
        if any(write.kind == "allocation" and write.state == "active" for write in commit.states):
            return Refused("P0001", "a trigger says no")
        return None

    sky.world.database.refuse = refuse


def _let_pass(sky: Sky, target: str) -> None:
    sky.world.database.refuse = lambda commit: None


def _lock(sky: Sky, target: str) -> str:
    locks = sky.world.database.locks
    held = sky.chance.choice(("head", "step", "allocations", "nodes"))
    if held == "head":
        locks.head = True
    else:
        locks.lock(held, reads=sky.chance.random() < 0.3)
    return held


def _crash(sky: Sky, target: str) -> None:
    sky.storm.die_in = sky.chance.choice((1, 2, 3, 5, 8, 13, 40))


def _stripe_error(sky: Sky, target: str) -> str:
    kind, times = sky.chance.choice(STRIPE_ERRORS), sky.chance.randint(1, 3)
    sky.world.stripe.book.faults.add(StripeFault(kind=kind, times=times))
    return f"{kind} ×{times}"


def _step_clock(sky: Sky, target: str) -> str:
    sky.world.clock_ahead_us = sky.chance.choice((-HOUR_US, HOUR_US, -2_500_000, 700_000, 5_000_000))
    return f"by {sky.world.clock_ahead_us / 1e6:+g} s"


def _clock_right(sky: Sky, target: str) -> None:
    sky.world.clock_ahead_us = 0


def _overfull(sky: Sky, target: str) -> str | None:
    known = sorted(_provider(sky, target).namespaces)
    if not known:
        return None
    name = sky.chance.choice(known)
    _provider(sky, target).namespaces[name].used_bytes = 10**12
    return name


def _emptied(sky: Sky, target: str) -> None:
    for stored in _provider(sky, target).namespaces.values():
        stored.used_bytes = 0


def queues(world: World) -> list[FaultQueue]:
    """All that is laid on machines and providers."""
    machines, providers = world.machines.machines.values(), world.providers.providers.values()
    return [*(machine.laid for machine in machines), *(provider.laid for provider in providers)]


KINDS: Final[tuple[FaultKind, ...]] = (
    FaultKind(name="machine-dies", what="it answers nothing, and comes back", of="machine", begins=_off("up")[0],
              ends=_off("up")[1], stays=3.0),
    FaultKind(name="machine-reboots", what="it comes back with another boot, without mounts", of="machine",
              begins=_reboot, stays=0),
    FaultKind(name="agent-silent", what="no heartbeat, while SSH answers", of="machine", begins=_off("beats")[0],
              ends=_off("beats")[1], stays=2.0),
    FaultKind(name="ssh-fails", what="a step's script exits 1", of="machine",
              begins=_laid("ssh-fails", ("fail", SSH_OPS)),
              waits=True, weight=3),
    FaultKind(name="ssh-hangs", what="a step gives no answer in its time, or only late", of="machine",
              begins=_laid("ssh-hangs", ("hang", SSH_OPS), ("slow", SSH_OPS)), waits=True),
    FaultKind(name="ssh-unknown", what="a step is done, and its reply is lost", of="machine",
              begins=_laid("ssh-unknown", ("lose", SSH_OPS)), waits=True, weight=3),
    FaultKind(name="ssh-refused", what="no connection", of="machine",
              begins=_laid("ssh-refused", ("refuse", SSH_OPS)), waits=True),
    FaultKind(name="host-key-changed", what="it shows another host key", of="machine", begins=_other_key,
              ends=lambda sky, target: _machine(sky, target).laid.drop("host-key-changed"), waits=True,
              stays=2.0, weight=2),
    FaultKind(name="agent-unheard", what="a task or its result is lost or late", of="machine",
              begins=_laid("agent-unheard", ("lose", AGENT_OPS), ("hang", AGENT_OPS), ("slow", AGENT_OPS)), waits=True,
              weight=6),
    FaultKind(name="mount-fails", what="a mount fails, or says so and is there", of="machine",
              begins=_laid("mount-fails", ("fail", ("mount",)), ("fail_mounted", ("mount",))), waits=True,
              weight=4),
    FaultKind(name="mount-busy", what="a mount is in use when it is to go", of="machine",
              begins=_laid("mount-busy", ("busy", ("unmount",)), ("fail_unmounted", ("unmount",)), times=12),
              waits=True),
    FaultKind(name="provider-away", what="nobody serves the storage provider", of="provider",
              begins=lambda sky, target: setattr(_provider(sky, target), "up", False),
              ends=lambda sky, target: setattr(_provider(sky, target), "up", True), weight=3),
    FaultKind(name="provider-fails", what="it fails, answers nonsense or hangs", of="provider",
              begins=_laid("provider-fails", *((kind, PROVIDER_OPS) for kind in ("fail", "malformed", "hang"))),
              waits=True, weight=3),
    FaultKind(name="provider-partial", what="it says that a grant is half done", of="provider",
              begins=_laid("provider-partial", ("partial", ("grant", "revoke"))), waits=True),
    FaultKind(name="provider-unknown", what="done, and its reply is lost", of="provider",
              begins=_laid("provider-unknown", ("lose", ("grant", "revoke"))), waits=True, weight=3),
    FaultKind(name="provider-lies", what="it says done, and has not", of="provider",
              begins=_laid("provider-lies", ("lie", ("grant", "revoke")), ("keep", ("revoke",))), waits=True),
    FaultKind(name="quota-exceeded", what="a namespace is above its quota", of="provider", begins=_overfull,
              ends=_emptied, stays=2.0),
    FaultKind(name="bus-away", what="NATS cannot be reached", of="world",
              begins=lambda sky, target: setattr(sky.links, "bus", False),
              ends=lambda sky, target: setattr(sky.links, "bus", True), weight=3),
    FaultKind(name="stream-gone", what="a stream is gone with all it held", of="world", begins=_stream_gone,
              ends=_streams_back),
    FaultKind(name="stream-full", what="a stream takes nothing", of="world", begins=_full,
              ends=lambda sky, target: sky.world.bus.full.clear()),
    FaultKind(name="ack-lost", what="every other acknowledgement of the bus is lost", of="world", begins=_unheard,
              ends=lambda sky, target: setattr(sky.world.bus, "unheard", lambda message: False)),
    FaultKind(name="database-away", what="Postgres cannot be reached", of="world",
              begins=lambda sky, target: setattr(sky.world.database, "away", True),
              ends=lambda sky, target: setattr(sky.world.database, "away", False), stays=0.3, weight=3),
    FaultKind(name="commit-reply-lost", what="committed, and nobody hears", of="world", begins=_lose_reply,
              stays=0, weight=4),
    FaultKind(name="activation-refused", what="a trigger refuses activations", of="world", begins=_refuse_one,
              ends=_let_pass, stays=0.3),
    FaultKind(name="database-locked", what="a foreign session holds the head or a table", of="world", begins=_lock,
              ends=lambda sky, target: sky.world.database.locks.free(), stays=0.2),
    FaultKind(name="crash", what="the process dies at one of its next calls, and is started again", of="world",
              begins=_crash, stays=0, weight=6),
    FaultKind(name="stripe-away", what="Stripe cannot be reached", of="world",
              begins=lambda sky, target: setattr(sky.world.stripe, "up", False),
              ends=lambda sky, target: setattr(sky.world.stripe, "up", True), stays=2.0),
    FaultKind(name="stripe-errors", what="500, 429, 409, or cut, done or not", of="world", begins=_stripe_error,
              stays=0, weight=3),
    FaultKind(name="stripe-repeats", what="webhooks come several times", of="world",
              begins=lambda sky, target: setattr(sky, "repeats", True),
              ends=lambda sky, target: setattr(sky, "repeats", False), stays=5.0),
    FaultKind(name="stripe-reorders", what="webhooks come in any order", of="world",
              begins=lambda sky, target: setattr(sky, "reorders", True),
              ends=lambda sky, target: setattr(sky, "reorders", False), stays=5.0),
    FaultKind(name="clock-steps", what="the wall clock is wrong, by up to an hour", of="world", begins=_step_clock,
              ends=_clock_right),
)  # fmt: skip
BY_NAME: Final = {kind.name: kind for kind in KINDS}
