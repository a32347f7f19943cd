"""The policy that tests rent under: the built-in one, by another name where the name matters."""

from importlib import resources

import msgspec

from actors.money.policy import Policy
from supervisors.policy_file import read_policy

POLICY: Policy = read_policy("policy.toml", resources.files("supervisors").joinpath("policy.toml").read_bytes())
OLD_POLICY = msgspec.structs.replace(POLICY, policy_version="2026-01", sha256="ab" * 32)
