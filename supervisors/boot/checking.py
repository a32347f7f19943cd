"""`amends check`: a configuration against the real servers, before anything runs. It reads and writes nothing.

Each line is a part, `ok`, `note` (it works, and one should know) or `wrong`, and what to do.
"""

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout
from msgspec import Struct

from adapters.cli import tables
from adapters.embedded.account import known_home
from adapters.nats import connection
from adapters.nats.publishing import JetStreamPublisher
from adapters.otel.environment import export_target, resource_of
from adapters.postgres import installation
from adapters.ssh.client_key import fingerprint
from amends.domain.matrix import broken_promises
from amends.values.errors import BadConfiguration, Rejected, Unavailable
from supervisors.boot import anchors
from supervisors.boot.client_key import NAME as CLIENT_KEY
from supervisors.boot.client_key import key_file, public_of
from supervisors.boot.servers import check_users
from supervisors.boot.stripe import StripeLink
from supervisors.matrix import MATRIX
from supervisors.nats_options import nats_options
from supervisors.paths import WRITABLE, directory_fault, told
from supervisors.policy_file import load as load_policy
from supervisors.settings import Settings, check_serving

OLDEST_POSTGRES: Final = 140000
NEEDED_CONNECTIONS: Final = 20
SKEW_US: Final = 1_000_000
REACH_S: Final = 3.0
NOBODY: Final = "cus_amends_check"  # a customer that Stripe does not know


class Line(Struct, frozen=True):
    """One thing that was looked at."""

    part: str
    found: str  # ok, note or wrong
    what: str


Lines = AsyncIterator[Line]


async def check(settings: Settings, *, upgrade: bool = False) -> int:
    """Print what was found; 0 if nothing is wrong, else 1. `upgrade`: only what a change of the release touches."""
    looks: list[Callable[[Settings], Lines]] = [_database, _open_runs]
    if not upgrade:
        looks = [_state_dir, _callers, _policy, *looks, _ssh_key, _anchors, _nats, _spans, _stripe, _http]
    found = []
    for look in looks:
        try:
            found += [line async for line in look(settings)]
        except (BadConfiguration, Unavailable, OSError) as error:
            why = told(error) if isinstance(error, OSError) else str(error)
            found.append(Line(look.__name__.strip("_").replace("_", " "), "wrong", why))
    width = os.get_terminal_size().columns if sys.stdout.isatty() else None
    print(tables.table([{name: getattr(line, name) for name in Line.__struct_fields__} for line in found],
                       ["part", "found", "what"], width))  # fmt: skip
    wrong = sum(line.found == "wrong" for line in found)
    print(f"{wrong} wrong" if wrong else "nothing is wrong")
    return 1 if wrong else 0


async def _state_dir(settings: Settings) -> Lines:
    why = directory_fault(Path(settings.state_dir))
    yield Line("state_dir", "wrong" if why else "ok",
               f"{settings.state_dir} cannot be used: {why}; {WRITABLE}" if why else settings.state_dir)  # fmt: skip


async def _callers(settings: Settings) -> Lines:
    check_serving(settings)
    if settings.callers == "open" or not settings.known_callers:
        yield Line("callers", "note", "whoever NATS lets in may send commands, as anonymous")
    else:
        yield Line("callers", "ok", ", ".join(settings.known_callers))
    if settings.operators:
        yield Line("operators", "ok", ", ".join(f"{name} ({one.role})" for name, one in settings.operators.items()))
    else:
        yield Line("operators", "note", "one is made at the start; its token stands in endpoints.json")


async def _policy(settings: Settings) -> Lines:
    policy, _ = load_policy(settings.policy_file)
    yield Line("policy", "ok", f"{policy.policy_version} in {policy.currency}, {settings.policy_file or 'built in'}")


async def _database(settings: Settings) -> Lines:
    dsn = settings.postgres.dsn
    if not dsn:
        home = known_home(Path(settings.state_dir).absolute())
        yield Line(
            "postgres", "note", f"embedded, in {home}: one machine, and no standby; what it holds is not looked at"
        )
        return
    server = await installation.server(dsn)
    yield Line("postgres", "ok" if server.number >= OLDEST_POSTGRES else "wrong", f"PostgreSQL {server.version}")
    if server.standby:
        yield Line("postgres", "wrong", "this is a standby of a cluster: name its primary")
    for name in ("fsync", "full_page_writes"):
        if getattr(server, name) != "on":
            yield Line("postgres", "wrong", f"{name} is off: what was answered may be lost when the machine fails")
    if server.synchronous_commit not in ("on", "remote_apply"):
        yield Line("postgres", "note", f"synchronous_commit is {server.synchronous_commit}; the runtime sets its own")
    if not server.standbys:
        yield Line("postgres", "note", "no synchronous replica: a failover may lose the last commits (promise P2)")
    if server.max_connections < NEEDED_CONNECTIONS:
        yield Line("postgres", "wrong", f"max_connections is {server.max_connections}; a runtime and a standby need "
                   f"{NEEDED_CONNECTIONS}")  # fmt: skip
    if server.pending and not server.may_create:
        yield Line("postgres", "wrong", "the role may create nothing in the database, and migrations are to be run")
    skew_us = abs(server.now_us - time.time_ns() // 1000)
    if skew_us > SKEW_US:
        yield Line("clock", "wrong", f"Postgres' clock is {skew_us / 1e6:.1f} s from this machine's")
    for line in _schema(server):
        yield line


def _schema(server: installation.Server) -> Iterator[Line]:
    names = [name for name, _ in server.pending]
    closing = [name for name, kind in server.pending if kind == "contract"]
    if server.empty:
        yield Line("schema", "note", "the database is empty; a start makes all of it")
    elif names:
        yield Line("schema", "note", f"{len(names)} migrations to run: {', '.join(names)}")
    else:
        yield Line("schema", "ok", "as this release has it")
    if closing and not server.empty:
        yield Line("schema", "note", f"there is no way back from {', '.join(closing)}: make a backup first")


async def _open_runs(settings: Settings) -> Lines:
    if not settings.postgres.dsn:
        return
    faults = broken_promises(MATRIX, await installation.open_rows(settings.postgres.dsn, MATRIX.sha256))
    for fault in faults:
        yield Line("open runs", "wrong", f"{fault}; let the release before end them first")
    if not faults:
        yield Line("open runs", "ok", f"matrix {MATRIX.version} owes what they owe")


async def _ssh_key(settings: Settings) -> Lines:
    path = key_file(settings, Path(settings.state_dir))
    if not os.path.lexists(path):
        yield Line("ssh key", "note", f"{path} is not there; a start makes it")
        return
    own = fingerprint(public_of(path))
    known = await installation.installed(settings.postgres.dsn, CLIENT_KEY) if settings.postgres.dsn else ""
    if known and known != own:
        yield Line("ssh key", "wrong", f"{own}, and the nodes of this database know {known}")
    else:
        yield Line("ssh key", "ok", own)


async def _anchors(settings: Settings) -> Lines:
    key, file = anchors.key_file(settings, Path(settings.state_dir)), Path(settings.anchors.file)
    if os.path.lexists(key):
        anchors.signer_of(key)
        yield Line("anchors", "ok", f"signed with {key}")
    else:
        yield Line("anchors", "note", f"{key} is not there; a start makes it")
    if settings.anchors.file and (why := directory_fault(file.parent)):
        yield Line("anchors", "wrong", f"[anchors].file: {file} cannot be kept there: {why}")


async def _nats(settings: Settings) -> Lines:
    found, options = settings.nats, nats_options(settings)
    if not found.servers:
        await check_users(settings)
        yield Line("nats", "note", "embedded" + ("" if found.users_file else ", without users: this machine only"))
        return
    client = await connection.connect(found.servers, name="amends-check", **options)
    try:
        yield Line("nats", "ok", f"nats-server {client.connected_server_version}")
        publisher = JetStreamPublisher(client)
        missing = await publisher.missing()
        makes = found.auto_create_streams == "startup"
        if missing:
            said = "; a start makes them" if makes else '; make them, or set auto_create_streams = "startup"'
            yield Line("streams", "note" if makes else "wrong", f"{', '.join(missing)} missing{said}")
        else:
            yield Line("streams", "ok", "AMENDS_EVT and AMENDS_NTF are there")
        clock_us = await publisher.clock_us()
        if clock_us is not None and abs(clock_us - time.time_ns() // 1000) > SKEW_US:
            yield Line("clock", "wrong", "nats-server's clock is more than a second from this machine's")
    finally:
        await connection.close(client)


async def _spans(settings: Settings) -> Lines:
    target = export_target(settings.otlp.endpoint, settings.otlp.headers, os.environ)
    resource_of(os.environ)
    if not target.url:
        yield Line("spans", "note", "sent nowhere; the console and /api/ show them all the same")
        return
    parts = urlsplit(target.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(REACH_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError) as error:
        yield Line("spans", "wrong", f"nobody answers at {parts.hostname}:{port}: {str(error) or 'no answer'}")
        return
    writer.close()
    await writer.wait_closed()
    yield Line("spans", "ok", f"{parts.scheme}://{parts.hostname}:{port}")


async def _stripe(settings: Settings) -> Lines:
    if not settings.stripe.mirror_credits:
        yield Line("stripe", "note", "credits are not mirrored")
    else:
        link = StripeLink(settings.stripe, lambda: time.time_ns() // 1000)
        answer = "it knows the customer that was asked for"
        try:
            await link.mirrored(NOBODY)
        except Rejected as error:  # it knows the key, and not the customer
            answer = error.code
        finally:
            await link.close()
        yield Line("stripe", "ok", f"the key is good ({answer})")
    if not settings.stripe.webhook_secrets:
        yield Line("webhooks", "note", "[stripe].webhook_secrets is empty: every webhook is refused")


async def _http(settings: Settings) -> Lines:
    host, _, port = settings.http.listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((host.strip("[]"), int(port)))
        except OSError as error:
            ours = await _is_amends(host, port)
            said = "a runtime answers there" if ours else f"{error.strerror}, by what is no runtime"
            yield Line("http", "note" if ours else "wrong", f"{settings.http.listen}: {said}")
            return
    yield Line("http", "ok", settings.http.listen)


async def _is_amends(host: str, port: str) -> bool:
    url = f"http://{host or '127.0.0.1'}:{port}/healthz"
    try:
        async with ClientSession(timeout=ClientTimeout(total=REACH_S)) as session, session.get(url) as answer:
            return answer.status == HTTPStatus.OK and await answer.json() == {"ok": True}
    except (ClientError, TimeoutError, ValueError):
        return False
