"""Storage: R10 to R14, each broken for real; what a namespace holds is the same before and after."""

import secrets
import time
from pathlib import Path
from typing import Any

from msgspec import Struct

from supervisors.demo.host import PROVIDER, QUOTA_BYTES
from supervisors.demo.operator import types
from supervisors.demo.result import Result, ended, expect
from supervisors.demo.site import DemoFailed, Site
from supervisors.demo.teller import Teller

PATH = "/mnt/data"


class Place(Struct):
    """An active rental, its node, and a namespace that its customer may attach."""

    allocation: str
    node: str
    namespace: str
    directory: Path


async def placed(site: Site) -> Place:
    """A new one of all."""
    allocation = await site.request()
    await site.allocation_is(allocation, "active")
    node = await site.value("SELECT node_id FROM public_v1.allocation WHERE allocation_id = $1", allocation)
    namespace = f"data-{secrets.token_hex(3)}"
    directory = site.host.make(namespace)
    await site.ask("cmd.namespace.create", {
        "namespace_id": namespace, "account_id": "acme", "provider_id": PROVIDER, "quota_bytes": QUOTA_BYTES,
    })  # fmt: skip
    await site.until_sql(
        "the provider has told what is used",
        "SELECT used_bytes IS NOT NULL FROM public_v1.namespace WHERE namespace_id = $1", namespace,
    )  # fmt: skip
    return Place(allocation, str(node), namespace, directory)


async def attach(site: Site, place: Place, state: str, **more: Any) -> dict[str, Any]:
    """Ask for it and wait for that state; its row."""
    wish = {"allocation_id": place.allocation, "namespace_id": place.namespace, "mode": "rw", "mount_path": PATH}
    asked = await site.ask("cmd.attachment.attach", {**wish, **more})
    return await attachment_is(site, asked["attachment"]["attachment_id"], state)


async def attachment_is(site: Site, attachment: str, state: str) -> dict[str, Any]:
    """Wait for a state of it; its row."""
    query = "SELECT * FROM public_v1.attachment WHERE attachment_id = $1"

    async def check() -> bool:
        found = (await site.rows(query, attachment))[0]
        if found["state"] != state and found["state"] in ("attached", "failed", "detached"):
            raise DemoFailed(f"{attachment} is {found['state']} ({found['reason']}), not {state}")
        return bool(found["state"] == state)

    if state == "detached":
        ended_so = "SELECT state = 'detached' FROM public_v1.attachment WHERE attachment_id = $1"
        await site.until_sql(f"{attachment} is detached", ended_so, attachment)
    else:
        await site.until(check, f"{attachment} is {state}")
    return (await site.rows(query, attachment))[0]


async def over(site: Site, place: Place) -> None:
    """Give the rental back; what was attached is detached, and holds what it held."""
    await site.ask("cmd.allocation.release", {"allocation_id": place.allocation})
    await site.allocation_is(place.allocation, "released")
    if (place.directory / "letter").read_text(encoding="utf-8") != "dear customer":
        raise DemoFailed(f"{place.namespace}: what it holds has changed")


async def r10(site: Site, tell: Teller) -> Result:
    """A second writer wants a namespace that one writes to."""
    place = await placed(site)
    await attach(site, place, "attached")
    (place.directory / "answer").write_text("thank you", encoding="utf-8")
    began = time.monotonic()
    row = await attach(site, place, "failed", mount_path="/mnt/more")
    entity = f"attachment:{row['attachment_id']}"
    await ended(site, entity, "recovered", "R10")
    undone = await expect(site, entity, [("cancel", "decision", "success")])
    await tell.say(f"refused before anybody was asked: {row['reason']}")
    ms = (time.monotonic() - began) * 1000
    await over(site, place)
    return Result("R10", "two writers of one namespace", undone, "recovered", ms)


async def r11(site: Site, tell: Teller) -> Result:
    """The storage host has lost the directory: access cannot be granted, and is taken back."""
    place = await placed(site)
    away = place.directory.with_name(f"{place.namespace}.away")
    place.directory.rename(away)
    try:
        began = time.monotonic()
        row = await attach(site, place, "failed")
    finally:
        away.rename(place.directory)
    entity = f"attachment:{row['attachment_id']}"
    await ended(site, entity, "recovered", "R11")
    undone = await expect(site, entity, [("reverse", "external_call", "success")])
    await tell.say(f"the provider says {row['reason']}; nothing of a grant is left")
    ms = (time.monotonic() - began) * 1000
    await over(site, place)
    return Result("R11", "the provider cannot grant", undone, "recovered", ms)


async def r12(site: Site, tell: Teller) -> Result:
    """It is mounted, and cannot be read."""
    assert site.fleet is not None
    place = await placed(site)
    await site.fleet.mount_fault(place.node, "probe_mount", "stale", 9)
    began = time.monotonic()
    row = await attach(site, place, "failed")
    await site.fleet.mend_mounts(place.node)
    entity = f"attachment:{row['attachment_id']}"
    await ended(site, entity, "recovered", "R12")
    undone = await expect(
        site, entity, [("reverse", "side_effect", "success"), ("reverse", "external_call", "success")]
    )
    await tell.say(f"the probe says {row['reason']}: unmounted, then access taken back")
    ms = (time.monotonic() - began) * 1000
    await over(site, place)
    return Result("R12", "the mount is stale", undone, "recovered", ms)


async def r13(site: Site, tell: Teller) -> Result:
    """A process holds the mount; nothing is forced, an operator has it tried again."""
    assert site.fleet is not None
    place = await placed(site)
    row = await attach(site, place, "attached")
    await site.fleet.mount_fault(place.node, "unmount", "busy", 99)
    began = time.monotonic()
    await site.ask("cmd.attachment.detach", {"attachment_id": row["attachment_id"]})
    await attachment_is(site, row["attachment_id"], "detach_failed")
    await tell.say(f"{place.node} cannot unmount, and nothing is forced. The process ends; an operator types:")
    await site.fleet.mend_mounts(place.node)
    await types(site, tell, "attachment", "retry-detach", row["attachment_id"], "--reason", "the process has ended")
    await attachment_is(site, row["attachment_id"], "detached")
    entity = f"attachment:{row['attachment_id']}"
    await ended(site, entity, "recovered", "R13")
    undone = await expect(site, entity, [
        ("compensate", "state_change", "failure"), ("reverse", "side_effect", "success"),
        ("reverse", "external_call", "success"),
    ])  # fmt: skip
    ms = (time.monotonic() - began) * 1000
    await over(site, place)
    return Result("R13", "a process holds the mount", undone, "recovered", ms)


async def r14(site: Site, tell: Teller) -> Result:
    """The namespace is twice as full as it may be: no new writer, until it is well below again."""
    place = await placed(site)
    began = time.monotonic()
    large = place.directory / "large"
    large.write_bytes(b"x" * 2 * QUOTA_BYTES)
    flag = "SELECT quota_flag IS {} NULL FROM public_v1.namespace WHERE namespace_id = $1"
    await site.until_sql("the namespace is flagged", flag.format("NOT"), place.namespace)
    row = await attach(site, place, "failed")
    await tell.say(f"a writer is refused ({row['reason']}); who reads is let in")
    await attach(site, place, "attached", mode="ro")
    large.unlink()
    entity = f"namespace:{place.namespace}"
    await ended(site, entity, "recovered", "R14")
    undone = await expect(site, entity, [("compensate", "state_change", "success")])
    ms = (time.monotonic() - began) * 1000
    await over(site, place)
    return Result("R14", "a namespace above its quota", undone, "recovered", ms)
