"""A storage provider as a program, `amends provider nfs`: the service's rules over a storage host's directories."""

import argparse
import asyncio
import os
import re
import shlex
import signal
import time
from pathlib import Path
from typing import Final

from adapters.nats.agent_link import AgentLink
from adapters.nats.provider_service import ProviderService
from adapters.storage.bind import BindBackend
from adapters.storage.directories import Directories
from adapters.storage.nfs import NfsBackend
from adapters.storage.usage import Measured, Quota
from amends.ports.storage import Backend, Capabilities
from amends.values.errors import BadConfiguration
from amends.values.ids import is_name
from supervisors.closing import watch
from supervisors.nats_options import nats_options
from supervisors.paths import made_directory
from supervisors.settings import load

DONE: Final = 0
CLOSE_S: Final = 1.5
OPTIONS: Final = re.compile(r"[A-Za-z0-9_=.:,@/-]{0,512}")  # of an export; whoever starts the program writes them
MOUNT_OPTIONS: Final = re.compile(r"[A-Za-z0-9_=.:,-]{0,512}")  # these go over the wire
SERVER: Final = re.compile(r"[A-Za-z0-9:][A-Za-z0-9._:-]{0,254}")


async def serve(o: argparse.Namespace) -> int:
    """Serve until a signal; raises `BadConfiguration`."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def on_signal() -> None:
        watch(CLOSE_S, lambda: ("the provider",))
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if not is_name(o.provider):
        raise BadConfiguration(f"--provider {o.provider!r} is no name; lower-case letters, digits and dashes")
    servers = (o.nats or os.environ.get("AMENDS_NATS_SERVERS", "nats://127.0.0.1:4222")).split(",")
    link = AgentLink(servers, name=f"amends-provider-{o.provider}", **nats_options(load(None, os.environ)))
    chosen = backend(o)
    state = made_directory(o.state or Path("./.amends-provider"), "--state", mode=0o700)
    service = ProviderService(o.provider, chosen, state)
    serving = asyncio.create_task(_serve(service, link))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if serving.done():
        serving.result()
    serving.cancel()
    await asyncio.wait({serving})
    await service.close()
    await link.close()
    return DONE


async def _serve(service: ProviderService, link: AgentLink) -> None:
    await service.restore()
    await link.run(service)


def backend(o: argparse.Namespace) -> Backend:
    """The backend that the options ask for; raises `BadConfiguration`."""
    for name, pattern in (("export_options", OPTIONS), ("mount_options", MOUNT_OPTIONS)):
        if pattern.fullmatch(getattr(o, name)) is None:
            raise BadConfiguration(f"--{name.replace('_', '-')} is a list of options without blanks")
    prefixes = tuple(filter(None, (o.mount_prefixes or "").split(",")))
    if not all(prefix.startswith("/") and prefix.isprintable() for prefix in prefixes):
        raise BadConfiguration("--mount-prefixes are absolute paths, with commas between them")
    directories = Directories(o.root)
    usages = Quota(directories, _now_us, shlex.split(o.quota)) if o.quota else Measured(directories, _now_us)
    can = Capabilities(
        multi_attach=o.multi_attach, mount_path_prefixes=prefixes, enforcement="quota" if o.quota else "none"
    )
    if o.bind:
        return BindBackend(directories, usages, can)
    if SERVER.fullmatch(o.server or "") is None:
        raise BadConfiguration("--server is the name or address by which nodes mount from this host; or give --bind")
    return NfsBackend(
        directories, usages, can, o.server, exportfs=shlex.split(o.exportfs), export_options=o.export_options,
        mount_options=o.mount_options,
    )  # fmt: skip


def _now_us() -> int:
    return time.time_ns() // 1000
