"""The stories of the storage rows R10 to R14: what is attached, what breaks, how it must end.

The clients are those of the other stories: they ask again with the keys they asked with before.
"""

from typing import Any

from adapters.simulated.providers import Stored
from supervisors.simulation.world import Running, World

ENDED = ("detached", "failed")
QUOTA = 1000


async def rented(running: Running) -> str:
    """An active rental on its node, and a namespace of its account; the rental's id."""
    await running.account("acme")
    await running.node("n1")
    allocation = await running.rent("acme", "rent")
    await running.until(lambda: running.state("allocation", allocation) == "active")
    holds(running.world, "data")
    await running.once("cmd.namespace.create", "namespace", namespace_id="data", account_id="acme",
                       provider_id="p1", quota_bytes=QUOTA)  # fmt: skip
    return allocation


def holds(world: World, name: str) -> Stored:
    """The namespace at its provider, made by an operator."""
    provider = world.provider()
    return provider.namespaces.get(name) or provider.hold(name, letter=b"dear customer")


async def attach(running: Running, allocation: str, key: str = "attach", *states: str, **more: Any) -> str:
    """The id of an attachment that has come to one of the states."""
    wish = {"allocation_id": allocation, "namespace_id": "data", "mode": "rw", "mount_path": "/mnt/data", **more}
    data = await running.ask("cmd.attachment.attach", key, **wish)
    attachment = str(data["attachment"]["attachment_id"])
    await running.until(lambda: running.state("attachment", attachment) in (states or ("attached", *ENDED)))
    return attachment


async def r10(running: Running) -> None:
    """The namespace is archived."""
    allocation = await rented(running)
    await running.ask("cmd.namespace.archive", "archive", namespace_id="data")
    await attach(running, allocation)
    await running.quiet()


def partly(world: World) -> None:
    """The provider grants only in part, for good."""
    world.provider().break_next("grant", "partial", 999)


async def r11(running: Running) -> None:
    """Access is granted in part only, and taken back; and so for R12, where the mount fails though it is there."""
    await attach(running, await rented(running))
    await running.quiet()


def badly_mounted(world: World) -> None:
    """The task fails, and has mounted."""
    world.machine("n1").break_next("mount", "fail_mounted", 99)


def busy(world: World) -> None:
    """A process holds a file open."""
    world.machine("n1").break_next("unmount", "busy", 999)


async def r13(running: Running) -> None:
    """A detach is given up; somebody ends the process, and an operator has it tried again."""
    attachment = await attach(running, await rented(running), "attach", "attached", "detaching", "detach_failed",
                              *ENDED)  # fmt: skip
    await running.ask("cmd.attachment.detach", "detach", attachment_id=attachment)
    await running.until(lambda: running.state("attachment", attachment) in ("detach_failed", "detached")
                        or running.body("attachment", attachment)["leaving"]["cause"] == "retry")  # fmt: skip
    running.world.machine("n1").mend()
    await running.ask("ops.attachment.retry_detach", "retry", attachment_id=attachment, reason="it has ended")
    await running.until(lambda: running.state("attachment", attachment) == "detached")
    await running.quiet()


async def r14(running: Running) -> None:
    """Far above its quota; a writer is refused, until it is well below again."""
    stored = holds(running.world, "data")
    allocation = await rented(running)
    runs = running.world.database.tables.rows["recovery_run"]
    if not any(row["matrix_row"] == "R14" for row in runs.values()):
        stored.used_bytes = 2 * QUOTA
    await running.until(lambda: any(row["matrix_row"] == "R14" for row in runs.values()))
    stored.used_bytes = 0
    await running.until(lambda: not running.body("namespace", "data").get("flag"))
    await attach(running, allocation)
    await running.quiet()
