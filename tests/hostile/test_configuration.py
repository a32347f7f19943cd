"""amends.toml, the environment, the policy: whatever stands there is taken or refused, and the refusal says where."""

import re
from pathlib import Path
from typing import Any, Final

import msgspec
from hypothesis import assume, example
from hypothesis import strategies as st

from actors.money.policy import Policy
from amends.values.errors import BadConfiguration
from supervisors.policy_file import BUILT_IN, read
from supervisors.settings import Settings, check_serving, load, variables
from supervisors.stored_policy import read_leniently
from supervisors.timing import TIMING
from supervisors.toml_lines import line_at, lines_of, parsed
from tests.hostile.values import given, tried, words

POLICY: Final = BUILT_IN.read_text(encoding="utf-8")
SETTINGS: Final = """\
profile = "production"
state_dir = "./here"
[postgres]
dsn = "postgres://a@b/c"
[nats]
servers = ["nats://a:4222"]
inbox_prefixes = ["_INBOX"]
auto_create_streams = "never"
[http]
listen = "127.0.0.1:1"
[ssh]
connect_timeout_ms = 3_000
[stripe]
mirror_credits = true
api_key = "sk_1"
webhook_secrets = ["whsec_1"]
[callers.shop]
token_sha256 = "CALLER"
accounts = ["acme"]
commands_per_s = 5
[prices]
small = 249_000_000
[operators]
olga = { token_sha256 = "OPERATOR", role = "viewer" }
[timing]
cleanup_tries = 3
cleanup_backoff_ms = [100, 200]
""".replace("CALLER", "a" * 64).replace("OPERATOR", "b" * 64)
TOML: Final = (
    "1", "-1", "0", "1e6", "nan", "inf", "true", '"a"', '""', '"\\u0000"', "[]", "[1, 2]", "[[1]]", "{}", "{ a = 1 }",
    "1979-05-27T07:32:00Z", "07:32:00", "0x" + "f" * 20, "9" * 19, "9" * 5000, "1_0" * 3000, '"' + "a" * 300 + '"',
    "'*'",
    '"\u202e"', "[" * 3000, "{ " + "a." * 3000 + "a = 1 }", "[" * 60 + "]" * 60, "{ a = " * 500, '["a", 1]',
    "'''a\nb'''", "",
)  # fmt: skip
KEYS: Final = (
    "colour", '"a b"', "a.b", "profile", "timing", "rule", "rule.bp", "''", "prices", "callers", "nats",
    ".".join("a" * 3000),
)  # fmt: skip


def edited(text: str) -> st.SearchStrategy[str]:
    """Its lines with one of them: another value, left out, twice, under another key, or with anything put into it."""
    lines = text.splitlines()
    number = st.integers(0, len(lines) - 1)

    def at(place: int, *new: str) -> str:
        return "\n".join([*lines[:place], *new, *lines[place + 1 :]]) + "\n"

    def key(place: int) -> str:
        return lines[place].partition("=")[0].strip() or "a"

    return st.one_of(
        st.builds(lambda n, value: at(n, f"{key(n)} = {value}"), number, st.sampled_from(TOML)),
        st.builds(lambda n, name, value: at(n, lines[n], f"{name} = {value}"), number, st.sampled_from(KEYS),
                  st.sampled_from(TOML)),
        number.map(at),
        number.map(lambda n: at(n, lines[n], lines[n])),
        st.builds(lambda n, name: at(n, f"[{name}]"), number, st.sampled_from(KEYS)),
        st.builds(lambda n, name: at(n, f"[[{name}]]"), number, st.sampled_from(KEYS)),
        st.builds(lambda place, more: text[: place % len(text)] + more + text[place % len(text) :],
                  st.integers(0, 10_000), st.text(max_size=4)),
    )  # fmt: skip


def said_where(error: BadConfiguration, text: str) -> None:
    """It names the file, and a line of it that there is."""
    message = str(error)
    assert "the file" in message
    line = re.search(r"line (\d+)", message)
    assert line is None or 1 <= int(line[1]) <= text.count("\n") + 2


@given(edited(POLICY))
@example("a = " + "9" * 5000)
@example("a = " + "[" * 3000)
@example(".".join("a" * 3000) + " = 1")
def test_a_policy_is_read_or_refused_with_its_line(text: str) -> None:
    data = text.encode(errors="surrogatepass")
    policy, error = tried(BadConfiguration, read, data, "the file")
    if error is not None:
        said_where(error, text)
        return
    # then it is whole, and what the database keeps of it says the same
    assert {policy.rule_for(rule.cause).cause for rule in policy.rules} == {rule.cause for rule in policy.rules}
    kept, mended = read_leniently(msgspec.json.encode({"toml": text}))
    assert (kept, mended) == (policy, [])
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy


@given(edited(POLICY))
@example("a = " + "9" * 5000)
@example("a = " + "[" * 3000)
@example(".".join("a" * 3000) + " = 1")
@example("a = 1e6\n" + POLICY)
@example("a = { b = [1, 1e6] }\n" + POLICY)
@example(POLICY.replace("unit_us = ", "colour = 1.5\nunit_us = "))
@example(POLICY.replace('applies_to = ["release",', 'applies_to = [1, 2, 3, 4, 1.5, "release",'))
def test_a_policy_that_an_older_release_took_is_read_somehow_or_named(text: str) -> None:
    found, error = tried(BadConfiguration, read_leniently, msgspec.json.encode({"toml": text}))
    if error is not None:
        assert "the stored policy is none" in str(error)
        return
    policy, _ = found
    assert policy.rule_for("node_offline").cause == "node_offline"
    assert policy.time.window_us % policy.time.unit_us == 0


@given(st.binary(max_size=60) | st.sampled_from((b"{}", b"null", b'{"toml": 1}', b'{"toml": "\\ud800"}', b"[" * 5000)))
def test_a_stored_document_that_is_no_policy_is_named(body: bytes) -> None:
    _, error = tried(BadConfiguration, read_leniently, body)
    assert "the stored policy is none" in str(error)


class Text(type(Path())):  # type: ignore[misc]
    """A file that is nowhere."""

    content = ""

    def read_text(self, *args: Any, **options: Any) -> str:
        return self.content

    def __str__(self) -> str:
        return "the file"


def loaded(text: str, environ: dict[str, str]) -> Settings:
    """The settings of that text."""
    file = Text("amends.toml")
    file.content = text
    return load(file, environ)


def judged(text: str, environ: dict[str, str]) -> None:
    found, error = tried(BadConfiguration, loaded, text, environ)
    if error is not None:
        if "the environment has" not in str(error):
            said_where(error, text)
        return
    # then all that is used of it can be used
    found.limits()
    _, error = tried(BadConfiguration, check_serving, found)
    assert error is None or "callers" in str(error)
    assert 0 <= int(found.http.listen.rpartition(":")[2]) <= 65535
    again = msgspec.convert(msgspec.to_builtins(found), Settings)
    assert again == found


@given(edited(SETTINGS))
@example("a = " + "9" * 5000)
@example("a = " + "[" * 3000)
@example(".".join("a" * 3000) + " = 1")
def test_settings_are_read_or_refused_with_their_line(text: str) -> None:
    judged(text, {})


ENVIRON: Final = {
    "AMENDS_POSTGRES_DSN": "a", "AMENDS_NATS_SERVERS": "a,b", "AMENDS_SSH_CONNECT_TIMEOUT_MS": "1", "AMENDS_PROFILE":
    "acceptance", "AMENDS_STRIPE_MIRROR_CREDITS": "true", "AMENDS_OTLP_HEADERS": "a=b", "AMENDS_CALLERS": "open",
    "AMENDS_TIMING_CLEANUP_TRIES": "3", "AMENDS_TIMING_CLEANUP_BACKOFF_MS": "1,2", "AMENDS_HTTP_LISTEN": "a:1",
}  # fmt: skip
names = st.sampled_from(sorted(ENVIRON)) | st.sampled_from(sorted(variables())) | words.map("AMENDS_{}".format)
environs = st.dictionaries(names, st.sampled_from(sorted(ENVIRON.values())) | words | st.just("9" * 5000), max_size=4)
FILES: Final = (
    "", SETTINGS, "postgres = 5\n", "timing = 5\n", "[timing]\nx = 1\n", "nats = []\n", "callers = 'open'\n",
    "ssh = ''",
)  # fmt: skip


@given(st.sampled_from(FILES), environs)
@example("prices." + ".".join("a" * 3000) + " = 1", {})
@example("timing = 5", {"AMENDS_TIMING_CLEANUP_TRIES": "3"})
@example("postgres = 5", {"AMENDS_POSTGRES_DSN": "a"})
@example("", {"AMENDS_TIMING_CLEANUP_TRIES": "9" * 5000})
def test_the_environment_over_a_file_is_taken_or_refused(text: str, environ: dict[str, str]) -> None:
    judged(text, environ)


def test_the_good_ones_are_good() -> None:
    assert loaded(SETTINGS, {}).prices == {"small": 249_000_000}
    assert set(ENVIRON) <= variables()
    assert set(loaded(SETTINGS, {}).timing) <= set(TIMING)


@given(edited(POLICY))
def test_a_line_is_that_of_its_key(text: str) -> None:
    raw, error = tried(ValueError, parsed, text)
    assume(error is None)
    lines, written = lines_of(text), text.splitlines()
    for number, rule in enumerate(raw["rule"] if isinstance(raw.get("rule"), list) else ()):
        line = line_at(lines, ("rule", number, "cause"))
        assert 0 <= line <= len(written)
        if isinstance(rule, dict) and "cause" in rule and ("rule", number, "cause") in lines:
            assert "cause" in written[line - 1]
