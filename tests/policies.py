"""The policies that tests rent under: the built-in one, and one that is known by another name."""

import msgspec

from supervisors.policy_file import built_in

POLICY = built_in()
OLD_POLICY = msgspec.structs.replace(POLICY, policy_version="2026-01", sha256="ab" * 32)
