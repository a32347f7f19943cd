"""Policies that were in force earlier, as the database keeps them: read leniently, since a release took them once.

A file that is given now is read strictly (`policy_file`). A stored one may be what an older, looser release accepted,
and meters may be open under it: what this release cannot take of it is put right by the least that will do, from the
built-in policy, and named. Amounts that are posted are never reckoned anew.
"""

from typing import Any

import msgspec
from msgspec import Struct

from actors.money.policy import ANY, Policy
from amends.values.canonical import UNREADABLE, sha256
from amends.values.errors import BadConfiguration
from supervisors.policy_file import BUILT_IN, CAUSES, Wrong, policy_of
from supervisors.toml_lines import parsed

MOST = 1_000  # places of one file that are put right
ALWAYS = ("policy_version", "currency")  # every release has asked for these


class Stored(Struct, frozen=True):
    """The body of a `policy` document."""

    toml: str


def read_stored(body: str | bytes) -> Policy:
    """The policy of a document; raises `BadConfiguration` where it holds no policy at all."""
    return read_leniently(body)[0]


def read_leniently(body: str | bytes) -> tuple[Policy, list[str]]:
    """The policy of a document, and what of it was put right; raises `BadConfiguration` where it holds none at all."""
    try:
        text = msgspec.json.decode(body, type=Stored).toml
        raw = parsed(text)
    except (*UNREADABLE, ValueError) as error:
        raise BadConfiguration(f"the stored policy is none: {error}") from None
    usual = parsed(BUILT_IN.read_text(encoding="utf-8"))
    rules = raw.get("rule")
    raw["rule"] = [one for one in rules if isinstance(one, dict)] if isinstance(rules, list) else []
    mended: list[str] = []
    for _ in range(MOST):
        try:
            policy = policy_of(raw)
            break
        except Wrong as wrong:
            if wrong.place[0] in ALWAYS:
                raise BadConfiguration(f"the stored policy is none: {wrong}") from None
            mended.append(str(wrong))
            _mend(raw, usual, wrong)
    else:
        raise BadConfiguration(f"the stored policy is none: more than {MOST} places of it are wrong")
    if policy.time.window_us % policy.time.unit_us:
        mended.append("`time.window_us` is no multiple of `time.unit_us`")
        policy = msgspec.structs.replace(policy, time=policy_of(usual).time)
    return msgspec.structs.replace(_complete(policy, usual, mended), sha256=sha256(text.encode())), mended


def _mend(raw: Any, usual: Any, wrong: Wrong) -> None:
    """Take an unknown key away; of what is missing or cannot be, have the built-in's. A rule has no built-in one."""
    if wrong.place[0] == "rule":
        _, number, *name = wrong.place
        if wrong.unknown:
            del raw["rule"][number][name[0]]
        else:
            del raw["rule"][number]
        return
    for part in wrong.place:
        if part not in usual:
            del raw[part]
            return
        if not isinstance(usual[part], dict) or not isinstance(raw.get(part), dict):
            raw[part] = usual[part]
            return
        raw, usual = raw[part], usual[part]


def _complete(policy: Policy, usual: dict[str, Any], mended: list[str]) -> Policy:
    """With the built-in's rules for each cause that has none for every reason."""
    missing = {cause for cause in CAUSES if not any(r.cause == cause and r.reason == ANY for r in policy.rules)}
    mended += [f"the cause {cause} has no rule for every reason" for cause in sorted(missing)]
    more = tuple(rule for rule in policy_of(usual).rules if rule.cause in missing)
    return msgspec.structs.replace(policy, rules=(*policy.rules, *more))
