"""Where the runtime is and with what token to ask: options, then the environment, then what the runtime wrote.

The local runtime's token goes to the local runtime only, never to a server that somebody named.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct

DEFAULT_STATE_DIR: Final = Path(".amends")
# Environment → nats-py option. The runtime's own are AMENDS_NATS_…: a client comes in as somebody else.
NATS_OPTIONS: Final = {
    "AMENDS_CLIENT_NATS_USER": "user",
    "AMENDS_CLIENT_NATS_PASSWORD": "password",
    "AMENDS_CLIENT_NATS_TOKEN": "token",
    "AMENDS_CLIENT_NATS_CREDS_FILE": "user_credentials",
    "AMENDS_CLIENT_NATS_NKEY_SEED_FILE": "nkeys_seed",
}


class NoRuntime(Exception):
    """Nothing says where the runtime is; the message says what to do."""


class Connection(Struct, frozen=True):
    """How to reach the runtime. Never printed whole: it holds secrets."""

    servers: tuple[str, ...]
    token: str
    options: dict[str, Any]

    @property
    def place(self) -> str:
        """The servers, fit to be shown."""
        return ", ".join(public(server) for server in self.servers)


def connection(nats: str | None, token: str | None, state_dir: Path | None, environ: Mapping[str, str]) -> Connection:
    """Put the settings together. Raises `NoRuntime`."""
    state_dir = state_dir or Path(environ.get("AMENDS_STATE_DIR", "") or DEFAULT_STATE_DIR)
    local = endpoints(state_dir)
    named = nats or environ.get("AMENDS_NATS_SERVERS", "")
    servers = tuple(one.strip() for one in (named or local.get("nats_url", "")).split(",") if one.strip())
    if not servers:
        raise NoRuntime(
            f"no runtime is known: there is no {state_dir / 'endpoints.json'}; start `amends run` or `amends demo "
            "--keep`, give --state-dir, or name its NATS with --nats or AMENDS_NATS_SERVERS"
        )
    token = token or environ.get("AMENDS_TOKEN", "")
    if not token and servers == (local.get("nats_url"),):
        token = local.get("operator_token", "")
    options = {option: environ[name] for name, option in NATS_OPTIONS.items() if environ.get(name)}
    return Connection(servers, token, options)


def endpoints(state_dir: Path) -> dict[str, str]:
    """What the runtime of `state_dir` wrote when it was ready; nothing if it did not. Raises `NoRuntime`."""
    file = state_dir / "endpoints.json"
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror or error if isinstance(error, OSError) else error
        raise NoRuntime(f"{file} cannot be read: {why}; ask as the user that the runtime has") from error
    if not isinstance(found, dict):
        raise NoRuntime(f"{file} cannot be read: it is not a JSON object")
    return {name: value for name, value in found.items() if isinstance(value, str)}


def public(url: str) -> str:
    """An address without user and password."""
    parts = urlsplit(url if "://" in url else f"nats://{url}")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
