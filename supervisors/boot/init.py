"""`amends init`: a commented configuration, users of NATS with their permissions, and an operator's token, once.

What is there is never overwritten.
"""

import hashlib
import os
import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from adapters.nats.permissions import configuration
from amends.values.errors import BadConfiguration
from amends.values.ids import is_name
from supervisors.paths import WRITABLE, directory_fault, made_directory
from supervisors.toml_lines import quoted

NAMES: Final = "1 to 63 lower-case letters, digits and dashes, a letter or digit first, with commas between them"
CONFIG, USERS, TOKEN = "amends.toml", "nats-users.conf", "operator.token"
TEXT: Final = """\
# Amends' configuration, written by `amends init`. Every key may be left out; docs/operations.md says what each does,
# and `amends check --config {config}` holds this file to the servers that it names.
profile = "production"
state_dir = {state}
# policy_file = "policy.toml"        # what is charged and credited; without it the built-in one

[postgres]
# dsn = "postgresql://amends@db.internal/amends"   # without it an embedded one: one machine, no standby

[nats]
# servers = ["tls://nats.internal:4222"]           # without them an embedded one with the users of this file:
users_file = {users}
user = "runtime"
password = "{runtime}"
operator_user = "operator"           # as whom the command line of this machine comes in
operator_password = "{operator}"

[operators.{name}]                   # of the token in {token_file}; another one: printf %s TOKEN | sha256sum
token_sha256 = "{digest}"
role = "operator"                    # or "viewer", who changes nothing

# [callers.front]                    # who may rent; named as soon as the servers of NATS are not embedded
# token_sha256 = "…"
# accounts = ["*"]

[http]
listen = "127.0.0.1:8321"            # console, health, metrics, Stripe's webhook; behind a proxy with TLS
# jaeger_url = "http://127.0.0.1:16686"

[otlp]
# endpoint = "http://127.0.0.1:4318" # where spans go

[stripe]
# webhook_secrets = ["whsec_…"]      # the current one first
# api_key = "rk_…"                   # for mirror_credits
# mirror_credits = true

[timing]
# offline_after_ms = 45000           # a node that is silent so long, and whose SSH server fails too, is lost
"""


def init(
    folder: Path, nodes: Sequence[str] = (), providers: Sequence[str] = (), *, operator: str = "admin"
) -> list[str]:
    """Write the three files; returns lines that say what was written and what comes next.

    `nodes` and `providers`: names whose agents get a user of their own. Raises `BadConfiguration` for a name that no
    node can have, and where one of the files is there.
    """
    folder = folder.absolute()
    if not str(folder).isprintable():  # it stands in a comment, too
        raise BadConfiguration(f"amends init: --folder: {str(folder)!r} has what cannot be printed; name another")
    for option, given in (("--nodes", nodes), ("--providers", providers)):
        for name in given:
            if not is_name(name):
                raise BadConfiguration(f"amends init: {option}: {name!r} is no name: {NAMES}")
    names = [
        "runtime",
        "streams",
        "front",
        "operator",
        *(f"node-{n}" for n in nodes),
        *(f"provider-{p}" for p in providers),
    ]
    users = {name: secrets.token_urlsafe(24) for name in names}
    token = secrets.token_urlsafe(32)
    try:
        permissions = configuration({name: f'"{password}"' for name, password in users.items()})
    except ValueError as error:
        raise BadConfiguration(f"amends init: {error}") from None
    if not operator.replace("-", "").replace("_", "").isalnum() or not operator.isascii():
        raise BadConfiguration(f"amends init: --operator {operator!r}: letters, digits, - and _")
    config = shlex.quote(str(folder / CONFIG))
    text = TEXT.format(
        config=config, state=quoted(folder / "state"), users=quoted(folder / USERS),
        runtime=users["runtime"],
        operator=users["operator"], name=operator, token_file=TOKEN, digest=hashlib.sha256(token.encode()).hexdigest(),
    )  # fmt: skip
    made = {CONFIG: text, USERS: permissions, TOKEN: f"{token}\n"}
    if why := directory_fault(folder):
        raise BadConfiguration(f"amends init: --folder: {folder} cannot be used: {why}; {WRITABLE}")
    if there := [name for name in made if (folder / name).exists()]:
        raise BadConfiguration(f"amends init: {', '.join(there)} in {folder} is there already and stays as it is")
    made_directory(folder, "amends init: --folder", mode=0o700)
    for name, content in made.items():
        with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content)
    return [
        f"{folder / CONFIG}: the configuration; change what is not so with you",
        f"{folder / USERS}: {len(users)} users of NATS and what each may say; passwords are in it",
        f"{folder / TOKEN}: the token of the operator {operator}; keep it, Amends has only its hash",
        f"next: amends check --config {config}, then amends run --config {config}",
    ]
