"""The policy file: what is wrong with it is refused with the file, the line and why (credit-policy.md)."""

from pathlib import Path

import pytest

from amends.values.canonical import sha256
from amends.values.errors import BadConfiguration
from supervisors.policy_file import BUILT_IN, built_in, load, read

TEXT = BUILT_IN.read_text()


def rule(cause: str, *more: str, name: str = "extra") -> str:
    return "\n".join(
        ["", "[[rule]]", f'id = "{name}"', f'cause = "{cause}"', 'stop_at = "accepted_at"', "bp = 0", *more]
    )


def line_of(text: str, wanted: str, nth: int = 1) -> int:
    """The line on which that text stands for the nth time."""
    return [number for number, line in enumerate(text.splitlines(), 1) if wanted in line][nth - 1]


def without(text: str, wanted: str) -> str:
    """The file without the rule of that id."""
    first, *rules = text.split("[[rule]]")
    return "[[rule]]".join([first, *(one for one in rules if f'"{wanted}"' not in one)])


# what is wrong: the file, the text whose line is named (and which of them), words of the refusal
WRONG: dict[str, tuple[str, str, int, list[str]]] = {
    "an unknown key": (f"colour = 1\n{TEXT}", "colour", 1, ["unknown key", "colour"]),
    "the hash, which is none of its keys": (f'sha256 = "a"\n{TEXT}', "sha256", 1, ["unknown key", "sha256"]),
    "an unknown key of a table": (TEXT.replace("[caps]", "[caps]\nper_day = 1"), "per_day", 1, ["caps.per_day"]),
    "an unknown table": (f"{TEXT}\n[more]\na = 1\n", "[more]", 1, ["unknown key", "more"]),
    "an unknown key of the second rule": (
        TEXT.replace('cause = "node_rebooted"', 'cause = "node_rebooted"\nbps = 1'), "bps", 1, ["`bps` of rule 2"],
    ),
    "a float": (TEXT.replace("unit_us = 1_000_000", "unit_us = 1e6"), "unit_us", 1, ["float", "time.unit_us"]),
    "a float in the second rule": (
        TEXT.replace("bp = 1000", "bp = 10.5").replace("bp = 10.5", "bp = 1000", 1), "bp = 10.5", 1,
        ["float", "`bp` of rule 2"],
    ),
    "a float under an unknown key": (f"{TEXT}\n[more]\na = [1, 2.0]\n", "a = [", 1, ["float", "more.a"]),
    "not a number": (TEXT.replace("exponent = 2", "exponent = nan"), "exponent", 1, ["float"]),
    "a boolean for a number": (TEXT.replace("unit_us = 1_000_000", "unit_us = true"), "unit_us", 1, ["bool"]),
    "a number for a boolean": (TEXT.replace("minimum = false", "minimum = 0"), "minimum = 0", 1, ["true or false"]),
    "a share of more than all": (TEXT.replace("bp = 10000", "bp = 10001"), "bp = 10001", 1, ["10000", "rule 3"]),
    "a negative time": (TEXT.replace("billable_us = 60", "billable_us = -60"), "billable_us", 1, [">= 0"]),
    "an id twice": (f'{TEXT}{rule("release", name="force_default")}', '"force_default"', 2, ["rule 6", "rule 4"]),
    "an empty cause": (f"{TEXT}{rule('')}", 'cause = ""', 1, ["`cause` of rule 6", "node_offline"]),
    "an unknown cause": (f"{TEXT}{rule('flood')}", '"flood"', 1, ["`cause` of rule 6", "force_release"]),
    "an unknown cause of the minimum": (TEXT.replace('["release",', '["flood",'), "applies_to", 1, ["applies_to"]),
    "a cause of no rule": (without(TEXT, "release_default"), "[[rule]]", 4, ["release", "no rule for every reason"]),
    "a cause without a rule for every reason": (
        without(TEXT, "force_default"), "[[rule]]", 3, ["force_release", "no rule for every reason"],
    ),
    "a rule that never applies": (f"{TEXT}{rule('release')}", "[[rule]]", 6, ["extra", "release_default"]),
    "a reason behind the rule for every reason": (
        TEXT + rule("force_release", 'reason = "late"'), "[[rule]]", 6, ["extra", "never apply", "force_default"],
    ),
    "a reason twice": (
        TEXT.replace("\n[[rule]]\nid = \"force_default\"", rule("force_release", 'reason = "platform_fault"', "")
                     + "\n[[rule]]\nid = \"force_default\""), "[[rule]]", 4, ["extra", "force_platform_fault"],
    ),
    "an empty reason": (TEXT.replace('reason = "*"', 'reason = ""'), 'reason = ""', 1, ["`reason` of rule 4"]),
    "windows that are no whole units": (
        TEXT.replace("unit_us = 1_000_000", "unit_us = 7"), "window_us", 1, ["multiple", "7"],
    ),
    "a unit of nothing": (TEXT.replace("unit_us = 1_000_000", "unit_us = 0"), "unit_us", 1, ["time.unit_us"]),
    "a currency of four letters": (TEXT.replace('"usd"', '"euro"'), "currency", 1, ["three lower-case letters"]),
    "a currency in capitals": (TEXT.replace('"usd"', '"USD"'), "currency", 1, ["three lower-case letters"]),
    "another rounding": (TEXT.replace('"ceil"', '"round"'), "credit", 1, ["rounding.credit", "ceil"]),
    "an unknown stop": (TEXT.replace('stop_at = "accepted_at"', 'stop_at = "now"', 1), '"now"', 1, ["rule 3"]),
    "a rule without a share": (TEXT.replace("bp = 10000\n", ""), "[[rule]]", 3, ["`bp` of rule 3 is missing"]),
    "a table that lacks a key": (TEXT.replace("min_credit_minor = 1", ""), "[caps]", 1, ["min_credit", "missing"]),
    "one rule that is no block": (without(TEXT, "x").split("[[rule]]")[0].replace("[time]", 'rule = 5\n[time]'),
                                  "rule = 5", 1, ["[[rule]]"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    text, wanted, nth, words = WRONG[case]
    file = tmp_path / "my.toml"
    file.write_text(text)
    with pytest.raises(BadConfiguration) as refused:
        load(file)
    said = str(refused.value)
    assert said.startswith(f"{file}, line {line_of(text, wanted, nth)}: "), said
    assert [word for word in words if word not in said] == [], said


@pytest.mark.parametrize("key", ["policy_version", "currency", "minor_unit_exponent", "on_over_quota"])
def test_what_is_missing_is_named(key: str) -> None:
    text = "\n".join(line for line in TEXT.splitlines() if not line.startswith(key))
    with pytest.raises(BadConfiguration, match=rf"my\.toml: `{key}` is missing"):
        read(text.encode(), "my.toml")


@pytest.mark.parametrize("text", [b"policy_version = \n", b"\xff", b"a = 1\na = 2\n"])
def test_what_is_no_toml_is_refused(text: bytes) -> None:
    with pytest.raises(BadConfiguration, match=r"my\.toml: the policy cannot be read"):
        read(text, "my.toml")


def test_a_rule_of_an_array_in_one_line_is_found_by_the_line_of_the_array() -> None:
    head = TEXT.split("[[rule]]")[0]
    text = f'rule = [{{id = "a", cause = "flood", stop_at = "accepted_at", bp = 0}}]\n{head}'
    with pytest.raises(BadConfiguration, match="line 1: `cause` of rule 1"):
        read(text.encode(), "my.toml")


def test_the_built_in_policy_is_the_one_of_the_contract() -> None:
    policy = built_in()
    assert (policy.version, policy.currency, policy.sha256) == ("2026-01-01.1", "usd", sha256(TEXT.encode()))
    assert [rule.id for rule in policy.rules] == [
        "node_offline", "node_rebooted", "force_platform_fault", "force_default", "release_default",
    ]  # fmt: skip


def test_a_rule_without_a_reason_takes_every_reason_and_the_first_that_matches_applies() -> None:
    policy = built_in()
    assert policy.rule_for("release", "anything").id == "release_default"
    assert policy.rule_for("force_release", "platform_fault").id == "force_platform_fault"
    assert policy.rule_for("force_release", "operator_request").id == "force_default"
    assert policy.rule_for("force_release").id == "force_default"
