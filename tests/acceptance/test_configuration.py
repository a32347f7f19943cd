"""A configuration that is wrong stops the start with status 2 and says where; nothing is created before that."""

import asyncio
import os
from pathlib import Path

import pytest

from amends.values.errors import BadConfiguration
from supervisors.boot.servers import Servers
from supervisors.settings import check_serving, load
from tests.forked import PIPE, python
from tests.patience import PATIENCE_S

HASH = "0" * 64

# What is in the file → what the message must say.
MALFORMED: dict[str, tuple[str, list[str]]] = {
    "an unknown key": ('profile = "acceptance"\n\ncolour = "red"\n', ["line 3", "colour"]),
    "an unknown section": ("[nonsense]\na = 1\n", ["line 1", "nonsense"]),
    "an unknown key of a section": ('[nats]\nservers = []\nserver = "a"\n', ["line 3", "server"]),
    "an unknown key of timing": ("[timing]\nheartbeat_interval = 5\n", ["line 2", "heartbeat_interval"]),
    "an unknown profile": ('profile = "staging"\n', ["line 1", "staging"]),
    "a number for a text": ("policy_file = 5\n", ["line 1", "policy_file"]),
    "a text for a number": ('[ssh]\nconnect_timeout_ms = "soon"\n', ["line 2", "connect_timeout_ms"]),
    "a section that is no table": ("postgres = 5\n", ["line 1", "postgres"]),
    "a list that is none": ('[nats]\nservers = "a"\n', ["line 2", "servers"]),
    "a choice that is none": ('[nats]\nauto_create_streams = "always"\n', ["line 2", "auto_create_streams"]),
    "a number for a range": ("[timing]\noutbox_backoff_ms = 5\n", ["line 2", "outbox_backoff_ms", "range"]),
    "a range for a number": ("[timing]\ncleanup_tries = [1, 2]\n", ["line 2", "cleanup_tries"]),
    "a range of one": ("[timing]\noutbox_backoff_ms = [5]\n", ["line 2", "outbox_backoff_ms", "range"]),
    "a range turned round": ("[timing]\noutbox_backoff_ms = [500, 50]\n", ["line 2", "outbox_backoff_ms", "range"]),
    "a negative time": ("[timing]\nsuspect_after_ms = -1\n", ["line 2", "suspect_after_ms"]),
    "no tries at all": ("[timing]\ncleanup_tries = 0\n", ["line 2", "cleanup_tries"]),
    "a float": ("[timing]\ncleanup_tries = 2.5\n", ["line 2", "cleanup_tries"]),
    "a truth for a number": ("[timing]\ncleanup_tries = true\n", ["line 2", "cleanup_tries"]),
    "broken TOML": ("profile = \n", ["line 1"]),
    "a key twice": ('profile = "acceptance"\nprofile = "production"\n', ["line 2"]),
    "a mirror without a key": ("[stripe]\nmirror_credits = true\n", ["mirror_credits", "api_key"]),
    "an empty webhook secret": ('[stripe]\nwebhook_secrets = ["whsec_1", ""]\n', ["webhook_secrets", "empty"]),
    "an operator's bad hash": ('[operators]\nboss = { token_sha256 = "x", role = "operator" }\n', ["boss"]),
    "an operator's bad role": (f'[operators]\nboss = {{ token_sha256 = "{HASH}", role = "king" }}\n', ["role"]),
    "an operator without a role": (f'[operators]\nboss = {{ token_sha256 = "{HASH}" }}\n', ["role"]),
    "a caller's bad hash": ('[callers]\nfront = { token_sha256 = "", accounts = ["*"] }\n', ["front"]),
    "a caller without accounts": (f'[callers]\nfront = {{ token_sha256 = "{HASH}" }}\n', ["accounts"]),
    "a caller's unknown key": (
        f'[callers]\nfront = {{ token_sha256 = "{HASH}", accounts = [], token = "x" }}\n',
        ["line 2", "token"],
    ),
    "a caller's limit that is none": (
        f'[callers]\nfront = {{ token_sha256 = "{HASH}", accounts = ["*"], open_requests = 0 }}\n',
        ["open_requests"],
    ),
    "a caller that could pass for an operator": (
        f'[callers]\n"operator:a" = {{ token_sha256 = "{HASH}", accounts = ["*"] }}\n',
        ["operator:a", "colon"],
    ),
    "callers that are neither named nor open": ('callers = "closed"\n', ["line 1", "callers"]),
    "a price below nothing": ("[prices]\nsmall = -1\n", ["line 2", "small", "-1"]),
    "a price that is no number": ('[prices]\nlarge = 1\nsmall = "1"\n', ["line 3", "small"]),
    "a price without a name": ('[prices]\n"no name" = 1\n', ["prices", "no name"]),
    "an address that is none": ('[http]\nlisten = "nowhere"\n', ["listen"]),
    "users of a server that is not ours": (
        '[nats]\nservers = ["nats://a"]\nusers_file = "users.conf"\n',
        ["line 3", "users_file", "servers are named"],
    ),
    "a file of users that is none": ('[nats]\nusers_file = "none.conf"\n', ["line 2", "users_file", "none.conf"]),
    "headers that are no table": ('[otlp]\nheaders = "hush"\n', ["line 2", "headers"]),
    "a header that is no text": ("[otlp]\nheaders = { a = 5 }\n", ["headers"]),
    "a header on two lines": ('[otlp]\nheaders = { authorization = "hush\\nhush" }\n', ["[otlp].headers"]),
    "a receiver that is no address": ('[otlp]\nendpoint = "collector:4318"\n', ["[otlp].endpoint"]),
    "a key's options on two lines": ('[ssh]\ncustomer_key_options = "a\\nb"\n', ["customer_key_options"]),
}

BAD_POLICIES: dict[str, tuple[str, list[str]]] = {
    "no TOML": ("policy_version = \n", ["policy"]),
    "no version": ('currency = "usd"\n', ["policy_version"]),
    "no currency": ('policy_version = "1"\n', ["currency"]),
    "a number for the version": ('policy_version = 5\ncurrency = "usd"\n', ["policy_version"]),
    "a currency that is none": ('policy_version = "1"\ncurrency = "dollars"\n', ["currency"]),
    "nothing at all": ("", ["policy_version"]),
}


async def run(arguments: list[str], **environment: str) -> tuple[int | None, str]:
    """The exit status of `amends run …` and what it said on standard error."""
    process = await python(
        "-m", "supervisors.boot", "run", *arguments, env={**os.environ, **environment}, stdout=PIPE, stderr=PIPE
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert b"ready" not in out
    return process.returncode, err.decode()


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_configuration_is_refused_with_its_place(state_dir: Path, case: str) -> None:
    text, words = MALFORMED[case]
    file = state_dir.parent / "amends.toml"
    file.write_text(text)
    status, said = await run(["--config", str(file)], AMENDS_STATE_DIR=str(state_dir))
    assert status == 2, said
    assert "Traceback" not in said
    assert [word for word in words if word not in said] == [], said
    assert "hush" not in said, "headers are secret"
    assert sorted(path.name for path in state_dir.parent.iterdir()) == ["amends.toml"], "nothing is created"


@pytest.mark.parametrize("case", BAD_POLICIES)
async def test_a_malformed_policy_is_refused_with_its_file(state_dir: Path, case: str) -> None:
    text, words = BAD_POLICIES[case]
    policy = state_dir.parent / "my-policy.toml"
    policy.write_text(text)
    file = state_dir.parent / "amends.toml"
    file.write_text(f'policy_file = "{policy}"\n')
    status, said = await run(["--config", str(file)], AMENDS_STATE_DIR=str(state_dir))
    assert status == 2, said
    assert "Traceback" not in said
    assert [word for word in ["my-policy.toml", *words] if word not in said] == [], said
    assert not state_dir.exists()


async def test_a_missing_file_is_refused_with_its_name(state_dir: Path) -> None:
    status, said = await run(["--config", str(state_dir.parent / "none.toml")], AMENDS_STATE_DIR=str(state_dir))
    assert (status, "none.toml" in said, "Traceback" in said) == (2, True, False), said
    file = state_dir.parent / "amends.toml"
    file.write_text(f'policy_file = "{state_dir.parent / "none-either.toml"}"\n')
    status, said = await run(["--config", str(file)], AMENDS_STATE_DIR=str(state_dir))
    assert (status, "none-either.toml" in said, "Traceback" in said) == (2, True, False), said
    assert not state_dir.exists()


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("AMENDS_PROFILE", "staging", "staging"),
        ("AMENDS_SSH_CONNECT_TIMEOUT_MS", "soon", "connect_timeout_ms"),
        ("AMENDS_TIMING_CLEANUP_TRIES", "many", "cleanup_tries"),
        ("AMENDS_TIMING_CLEANUP_TRIES", "1,2", "cleanup_tries"),
        ("AMENDS_TIMING_CLEANUP_BACKOFF_MS", "50", "cleanup_backoff_ms"),
        ("AMENDS_STRIPE_MIRROR_CREDITS", "perhaps", "mirror_credits"),
        ("AMENDS_NATS_AUTO_CREATE_STREAMS", "sometimes", "auto_create_streams"),
        ("AMENDS_OTLP_HEADERS", "hush", "headers"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "hush", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli", "OTEL_EXPORTER_OTLP_COMPRESSION"),
    ],
)
async def test_the_environment_is_held_to_the_same(state_dir: Path, name: str, value: str, word: str) -> None:
    file = state_dir.parent / "amends.toml"
    file.write_text("")
    settings = {"AMENDS_STATE_DIR": str(state_dir), name: value}
    status, said = await run(["--config", str(file)], **settings)
    assert status == 2, said
    assert word in said
    assert "hush" not in said
    assert not state_dir.exists()


@pytest.mark.parametrize("arguments", [["--config"], ["--nonsense"], ["--config", "a", "b"], ["unexpected"]])
async def test_a_wrong_command_line_is_a_question_of_usage(state_dir: Path, arguments: list[str]) -> None:
    status, said = await run(arguments, AMENDS_STATE_DIR=str(state_dir))
    assert status == 2, said
    assert said.strip()
    assert "Traceback" not in said
    assert not state_dir.exists()


@pytest.mark.parametrize(
    ("text", "line", "place"),
    [
        ("[operators]\n{a}\nboss = {{ {hash}, role = 'king' }}\n", 3, "operators.boss.role"),
        ("[operators]\n{a}\n[operators.boss]\n{hash}\n", 3, "operators.boss"),
        ("[callers]\nb = {{ {hash}, accounts = ['a', 5] }}\n", 2, "callers.b.accounts[1]"),
        ("[otlp]\nheaders = {{ a = 'b', c = 5 }}\n", 2, "otlp.headers.c"),
        ("[nats]\nservers = ['nats://a', 5]\n", 2, "nats.servers[1]"),
    ],
)
def test_of_many_the_one_that_is_wrong_is_named(tmp_path: Path, text: str, line: int, place: str) -> None:
    file, token = tmp_path / "amends.toml", f"token_sha256 = '{HASH}'"
    file.write_text(text.format(hash=token, a=f"a = {{ {token}, role = 'viewer' }}"))
    with pytest.raises(BadConfiguration) as refused:
        load(file, {})
    said = str(refused.value)
    assert (said.startswith(f"{file}, line {line}: "), said.endswith(f" - at `$.{place}`")) == (True, True), said


def test_timing_comes_from_the_environment_too() -> None:
    settings = load(None, {"AMENDS_TIMING_CLEANUP_TRIES": "1", "AMENDS_TIMING_CLEANUP_BACKOFF_MS": "50, 200"})
    assert settings.limits()["cleanup_tries"] == 1
    assert settings.limits()["cleanup_backoff_ms"] == (50, 200)


def test_headers_come_from_the_environment_too() -> None:
    settings = load(None, {"AMENDS_OTLP_HEADERS": "authorization=Bearer%20a%3Db, x-tenant=t1"})
    assert settings.otlp.headers == {"authorization": "Bearer a=b", "x-tenant": "t1"}


def test_a_variable_that_means_nothing_is_refused_with_what_may_be_meant() -> None:
    with pytest.raises(BadConfiguration, match=r"AMENDS_POSTGRES_DNS.*is AMENDS_POSTGRES_DSN meant"):
        load(None, {"AMENDS_POSTGRES_DNS": "postgresql://db"})
    assert load(None, {"AMENDS_POSTGRES_DSN": "postgresql://db", "AMENDS_TOKEN": "x"}).postgres.dsn == "postgresql://db"


def test_who_may_send_commands_over_a_nats_of_ones_own_is_written_down() -> None:
    outside = {"AMENDS_NATS_SERVERS": "nats://broker"}
    with pytest.raises(BadConfiguration, match='callers = "open"'):
        check_serving(load(None, outside))
    check_serving(load(None, outside | {"AMENDS_CALLERS": "open"}))
    check_serving(load(None, {}))


def test_a_start_says_which_servers_it_uses_and_no_password(tmp_path: Path) -> None:
    environment = {
        "AMENDS_POSTGRES_DSN": "postgresql://me:secret@db:5432/amends", "AMENDS_NATS_SERVERS": "nats://u:secret@b:4222",
    }  # fmt: skip
    said = Servers(load(None, environment), tmp_path).said
    assert said == "Postgres db:5432/amends, NATS b:4222"
    socket = {"AMENDS_POSTGRES_DSN": "postgresql:///amends?host=/run/pg&user=me&password=secret"}
    assert Servers(load(None, socket), tmp_path).said == "Postgres /run/pg/amends, embedded NATS"
    assert Servers(load(None, {}), tmp_path).said == f"embedded Postgres below {tmp_path}, embedded NATS"
