"""The machine as its agent sees it: this boot, the customers' accounts, the mounts. Knows no NATS."""

import pwd
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

CUSTOMER: Final = re.compile(r"am-[0-9a-z]{26}")


class MountTable(Protocol):
    """The machine's mounts as the agent sees them; attachments are named by their ids."""

    def own(self) -> Sequence[str]:
        """Attachments of this agent's durable record that are still mounted."""
        ...

    def foreign(self) -> Sequence[str]:
        """Mounts where attachments live that the record does not know: reported, never touched."""
        ...

    async def unmount(self, attachment_id: str) -> None:
        """Take one of its own away if it can be; what is left shows in `own`."""
        ...


class NoMounts:
    """The mount table of this release: the agent mounts nothing, so nothing is its own."""

    def own(self) -> Sequence[str]:
        """Nothing."""
        return ()

    def foreign(self) -> Sequence[str]:
        """Nothing is looked for."""
        return ()

    async def unmount(self, attachment_id: str) -> None:
        """There is nothing to take away."""


def customer_users() -> list[str]:
    """Customers' accounts of this machine."""
    return sorted(entry.pw_name for entry in pwd.getpwall() if CUSTOMER.fullmatch(entry.pw_name))


def machine_boot_id() -> str:
    """The kernel's name for this boot. Raises OSError where there is no such kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
