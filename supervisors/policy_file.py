"""The policy file, read strictly: what is wrong with it stops the start with its line and why (credit-policy.md).

A policy that was in force earlier is kept as a document, and read by `stored_policy`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from actors.money.policy import ANY, Cause, Policy, StopAt
from amends.values.canonical import sha256
from amends.values.errors import BadConfiguration
from supervisors.toml_lines import Path as Place
from supervisors.toml_lines import line_at, lines_of, parsed

BUILT_IN: Final = Path(__file__).with_name("policy.toml")
CAUSES: Final[tuple[str, ...]] = get_args(Cause)
# What the validator would say of these as a pattern or as "invalid enum value".
MEANT: Final = {
    "policy_version": "a text of 1 to 64 printable characters without spaces",
    "currency": "three lower-case letters",
    "on_over_quota": '"flag" or "intervene"',
    "rounding.debit": '"floor_cumulative": there is no other',
    "rounding.credit": '"ceil": there is no other',
    "caps.per_meter": '"net_debits": there is no other',
    "minimum.applies_to": f"a list of {', '.join(CAUSES)}, or some of them",
    "rule": "blocks that begin with [[rule]]",
    "rule.id": "1 to 63 lower-case letters, digits, dots, dashes or underscores",
    "rule.cause": f"one of {', '.join(CAUSES)}",
    "rule.reason": 'a text of 1 to 255 characters, or "*" for any',
    "rule.stop_at": f"one of {', '.join(get_args(StopAt))}",
    "rule.minimum": "true or false",
}


def load(file: str | Path = "") -> tuple[Policy, bytes]:
    """The policy of a file, the built-in one without, and its text as it stands there; raises `BadConfiguration`."""
    path = Path(file) if file else BUILT_IN
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadConfiguration(f"{path}: the policy cannot be read: {error}") from None
    return read(text, str(path)), text


def built_in() -> Policy:
    """The policy that applies where no file is named."""
    return load()[0]


def read(text: bytes, name: str) -> Policy:
    """The policy of that text; raises `BadConfiguration` with `name`, the line and what is wrong there."""
    try:
        whole = text.decode()
        raw = parsed(whole)
    except ValueError as error:
        raise BadConfiguration(f"{name}: the policy cannot be read: {error}") from None
    try:
        policy = policy_of(raw)
        _check(policy)
    except Wrong as wrong:
        line = line_at(lines_of(whole), wrong.place)
        raise BadConfiguration(f"{name}, line {line}: {wrong}" if line else f"{name}: {wrong}") from None
    return msgspec.structs.replace(policy, sha256=sha256(text))


class Wrong(Exception):
    """Something is wrong, and where; `unknown`: it is a key that there is not."""

    def __init__(self, place: Place, why: str, *, unknown: bool = False) -> None:
        super().__init__(why)
        self.place, self.unknown = place, unknown


def policy_of(raw: dict[str, Any]) -> Policy:
    """The policy that these keys say, each value looked at alone; raises `Wrong`. Its hash is another's to set."""
    for place in _floats(raw, ()):
        raise Wrong(place, f"{_said(place)} is a float; there are whole numbers only")
    if "sha256" in raw:  # a field of the policy, which is no key of the file
        raise Wrong(("sha256",), "unknown key `sha256`", unknown=True)
    try:
        return msgspec.convert({"rule": [], **raw}, Policy)
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at ")
        place = tuple(int(part) if part.isdigit() else part for part in re.findall(r"\w+", at))
    if unknown := re.search(r"unknown field `(.*)`", message):
        raise Wrong((*place, unknown[1]), f"unknown key {_said((*place, unknown[1]))}", unknown=True)
    if missing := re.search(r"missing required field `(.*)`", message):
        raise Wrong((*place, missing[1]), f"{_said((*place, missing[1]))} is missing")
    meant = MEANT.get(".".join(part for part in place if isinstance(part, str)))
    raise Wrong(place, f"{_said(place)} must be {meant}" if meant else f"{_said(place)}: {message}")


def _floats(value: Any, place: Place) -> Iterator[Place]:
    if isinstance(value, float):
        yield place
    elif isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _floats(one, (*place, key))


def _said(place: Place) -> str:
    """A place as the file's reader would say it: `time.unit_us`, `bp` of rule 2."""
    keys = ".".join(str(part) for part in place if isinstance(part, str))
    number = next((part + 1 for part in place if isinstance(part, int)), 0)
    return f"`{keys.removeprefix('rule.')}` of rule {number}" if keys.startswith("rule.") else f"`{keys}`"


def _check(policy: Policy) -> None:
    """What each value alone does not show."""
    if policy.time.window_us % policy.time.unit_us:
        why = f"`time.window_us` must be a multiple of unit_us, which is {policy.time.unit_us}"
        raise Wrong(("time", "window_us"), why)
    ids: dict[str, int] = {}
    for number, rule in enumerate(policy.rules):
        if rule.id in ids:
            why = f"the id {rule.id!r} of rule {number + 1} is that of rule {ids[rule.id]} already"
            raise Wrong(("rule", number, "id"), why)
        ids[rule.id] = number + 1
        for earlier in policy.rules[:number]:
            if earlier.cause == rule.cause and earlier.reason in (ANY, rule.reason):
                why = f"rule {rule.id!r} can never apply: {earlier.id!r} above it takes all of its ends"
                raise Wrong(("rule", number), why)
    for cause in CAUSES:
        own = [number for number, rule in enumerate(policy.rules) if rule.cause == cause]
        if not any(policy.rules[number].reason == ANY for number in own):
            place: Place = ("rule", own[-1] if own else len(policy.rules) - 1)
            raise Wrong(place, f'the cause {cause} has no rule for every reason: one without a reason, or with "*"')
