"""Policies of the database: what an older release took is no reason not to start, and no other policy than it was."""

import json

import msgspec
import pytest

from actors.money.policy import Policy
from amends.values.canonical import sha256
from amends.values.errors import BadConfiguration
from supervisors.policy_file import BUILT_IN, built_in, read
from supervisors.stored_policy import read_leniently, read_stored

TEXT = BUILT_IN.read_text()


def mended(text: str) -> tuple[Policy, list[str]]:
    with pytest.raises(BadConfiguration):
        read(text.encode(), "given now")
    return read_leniently(json.dumps({"toml": text}))


def test_it_is_read_as_the_file_was() -> None:
    assert read_leniently(json.dumps({"toml": TEXT})) == (built_in(), [])


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("currency", "colour = 1\ncurrency", "unknown key `colour`"),
        ("unit_us", "grace = 1\nunit_us", "unknown key `time.grace`"),
        ("bp", "note = 'x'\nbp", "unknown key `note` of rule 1"),
        ("window_us = 3_600_000_000", "window_us = 0", "`time.window_us`"),
        ("window_us = 3_600_000_000", "window_us = 1.5", "`time.window_us` is a float"),
        ("window_us = 3_600_000_000", "window_us = 3_600_000_001", "no multiple"),
        ('on_over_quota = "flag"', "", "`on_over_quota` is missing"),
        ('[caps]\nper_meter = "net_debits"', "[caps]", "`caps.per_meter` is missing"),
    ],
)
def test_what_a_looser_release_took_is_put_right_and_named_and_the_rest_stands(old: str, new: str, named: str) -> None:
    assert old in TEXT
    text = TEXT.replace(old, new, 1)
    policy, what = mended(text)
    assert len(what) == 1, what
    assert named in what[0]
    assert msgspec.structs.replace(policy, sha256="") == msgspec.structs.replace(built_in(), sha256="")
    assert policy.sha256 == sha256(text.encode()), "it is known by what it was"


def test_its_own_values_stand_beside_what_is_put_right() -> None:
    text = TEXT.replace("window_us = 3_600_000_000", "window_us = 60_000_000").replace("[caps]", "[hats]", 1)
    policy, what = mended(text)
    assert (policy.time.window_us, policy.caps) == (60_000_000, built_in().caps)
    assert len(what) == 2


def test_a_cause_without_a_rule_and_a_rule_that_is_none_have_the_built_in_ones() -> None:
    head, *rules = TEXT.split("[[rule]]")
    policy, what = mended(head + "[[rule]]" + rules[-1] + "[[rule]]\nid = 5\n")
    assert policy.rule_for("release").id == "release_default"
    assert policy.rule_for("node_offline") == built_in().rule_for("node_offline")
    assert policy.rule_for("force_release", "platform_fault") == built_in().rule_for("force_release", "platform_fault")
    assert len(what) == 4


def test_that_it_is_version_and_currency_only_is_enough() -> None:
    policy, _ = mended('policy_version = "old"\ncurrency = "eur"\n')
    assert (policy.version, policy.currency, policy.time) == ("old", "eur", built_in().time)


@pytest.mark.parametrize("body", ["{}", "no JSON", '{"toml": "currency = 5"}', '{"toml": "a = ["}'])
def test_what_is_no_policy_at_all_is_refused(body: str) -> None:
    with pytest.raises(BadConfiguration, match="the stored policy"):
        read_stored(body)
