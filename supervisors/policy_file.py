"""The policy file, read strictly: what is wrong with it stops the start (credit-policy.md)."""

import tomllib
from pathlib import Path

import msgspec

from actors.money.policy import Policy
from amends.values.canonical import sha256
from amends.values.errors import BadConfiguration

BUILT_IN = Path(__file__).with_name("policy.toml")


def load(path: Path) -> tuple[Policy, bytes]:
    """The policy of a file, and its text as it stands there; raises `BadConfiguration`."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadConfiguration(f"{path}: the policy cannot be read: {error}") from None
    return read(text, str(path)), text


def built_in() -> Policy:
    """The policy that applies where no file is named."""
    return load(BUILT_IN)[0]


def read(text: bytes, name: str) -> Policy:
    """The policy of that text; raises `BadConfiguration` with the name of where it stands."""
    try:
        policy = msgspec.convert(tomllib.loads(text.decode()), Policy)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfiguration(f"{name}: the policy cannot be read: {error}") from None
    except msgspec.ValidationError as error:
        raise BadConfiguration(f"{name}: {error}") from None
    return msgspec.structs.replace(policy, sha256=sha256(text))
