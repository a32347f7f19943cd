"""What may be mounted: the sources that a grant names, checked before anything of them reaches a command line."""

import re
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from amends.ports.mounts import MountRefused
from amends.values.mount_path import MAX_PATH_BYTES

SERVER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[?[0-9a-fA-F:.]{2,45}\]?")
# Who mounts decides on set-uid, devices and mode; and nothing that moves, binds or reads other files.
OPTIONS: Final = re.compile(
    r"(nfsvers|vers|minorversion|port|timeo|retrans|retry|rsize|wsize|nconnect|acregmin|acregmax|acdirmin|acdirmax|actimeo)"
    r"=[0-9.]{1,16}|proto=(tcp|tcp6|rdma)|sec=(sys|krb5|krb5i|krb5p)|lookupcache=(all|none|pos|positive)"
    r"|hard|soft|softerr|ac|noac|lock|nolock|cto|nocto|sync|async|noatime|nodiratime|relatime|noexec|noresvport|resvport"
)
PathText = Annotated[str, Meta(min_length=1, max_length=MAX_PATH_BYTES)]


class Nfs(Struct, frozen=True, tag_field="type", tag="nfs"):
    """An export of a server. `options`: with commas between them."""

    server: Annotated[str, Meta(max_length=255)]
    export: PathText
    options: Annotated[str, Meta(max_length=1024)] = ""

    @property
    def device(self) -> str:
        """As mount(8) takes it and the mount table shows it."""
        server = f"[{self.server.strip('[]')}]" if ":" in self.server else self.server
        return f"{server}:{self.export.rstrip('/') or '/'}"

    @property
    def flags(self) -> list[str]:
        """The options one by one."""
        return [each for each in self.options.split(",") if each]


class Bind(Struct, frozen=True, tag_field="type", tag="bind"):
    """A directory of the machine itself."""

    path: PathText


def source_of(source: dict[str, Any]) -> Nfs | Bind:
    """Read a source. Raises MountRefused (`source_not_allowed`)."""
    try:
        found = msgspec.convert(source, type=Nfs | Bind)
    except msgspec.ValidationError as error:
        raise MountRefused("source_not_allowed", f"the source cannot be read: {error}") from None
    path = found.path if isinstance(found, Bind) else found.export
    parts = path.split("/")
    if parts[0] or not path.isprintable() or any(part in (".", "..") for part in parts):
        raise MountRefused("source_not_allowed", "its path is not absolute and plain")
    if isinstance(found, Nfs):
        if SERVER.fullmatch(found.server) is None:
            raise MountRefused("source_not_allowed", "its server is no name and no address")
        for option in found.flags:
            if OPTIONS.fullmatch(option) is None:
                raise MountRefused("source_not_allowed", f"its option {option[:64]!r} is none that is taken")
    return found
