"""The policy file, read strictly: what is wrong with it stops the start, with its line and the reason."""

import tomllib

import msgspec

from actors.money.policy import Policy
from amends.values.canonical import sha256


class BadPolicy(Exception):
    """The policy cannot be used; the message says where and why."""


def read_policy(name: str, text: bytes) -> Policy:
    """The policy that a file says; raises `BadPolicy`."""
    try:
        found = msgspec.convert(tomllib.loads(text.decode()), Policy, strict=True)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadPolicy(f"{name}: {error}") from None
    return msgspec.structs.replace(found, sha256=sha256(text))
