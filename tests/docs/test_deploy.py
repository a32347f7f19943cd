"""What stands in deploy/ fits this release: metrics that there are, and commands that can be typed."""

import json
import re
import shlex
import tomllib
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

from adapters.cli import arguments
from adapters.cli.verbs import LOCAL
from supervisors.settings import HttpSettings, variables
from supervisors.timing import TIMING

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
TELEMETRY = (ROOT / "docs" / "telemetry.md").read_text()
KINDS = dict(re.findall(r"^\| `(amends_[a-z_]+)` \| (\w+) \|", TELEMETRY, re.MULTILINE))
PARTS = re.compile(r"_(bucket|sum|count)$")


def named(text: str) -> set[str]:
    """The metrics that a text speaks of."""
    return {
        PARTS.sub("", name) if PARTS.sub("", name) in KINDS else name for name in re.findall(r"amends_[a-z_]+", text)
    }


def dashboard() -> dict[str, Any]:
    """The dashboard of Grafana."""
    found: dict[str, Any] = json.loads((DEPLOY / "grafana" / "amends.json").read_text())
    return found


@pytest.mark.parametrize("file", ["prometheus/amends.rules.yml", "grafana/amends.json"])
def test_every_metric_that_is_looked_at_is_one_of_ours(file: str) -> None:
    found = named((DEPLOY / file).read_text())
    assert len(found) > 10
    assert found - KINDS.keys() == set()


def test_what_only_grows_is_looked_at_as_a_rate_and_what_does_not_is_not() -> None:
    text = (DEPLOY / "prometheus" / "amends.rules.yml").read_text() + json.dumps(dashboard())
    rated = set(re.findall(r"(?:rate|increase)\((amends_[a-z_]+)", text))
    for name in rated:
        assert KINDS[PARTS.sub("", name)] in ("counter", "histogram"), name
    counters = {name for name in named(text) if KINDS[name] in ("counter", "histogram")}
    assert counters == {PARTS.sub("", name) for name in rated}


def test_every_alarm_of_the_handbook_is_there() -> None:
    (advice,) = re.findall(r"\*\*Worth an alarm:\*\*(.*?)\n\n", TELEMETRY, re.DOTALL)
    rules = (DEPLOY / "prometheus" / "amends.rules.yml").read_text()
    assert named(advice) - named(rules) - {"amends_failures_total"} == set(), (
        "failures are put right: a picture, no page"
    )
    alerts = re.findall(r"alert: (\w+)", rules)
    assert len(alerts) == len(set(alerts)) == rules.count("summary:") == rules.count("description:")


def test_the_panels_of_the_dashboard_stand_beside_each_other() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    places = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in (panel["gridPos"] for panel in panels)
    ]
    assert sum(map(len, places)) == len(set().union(*places))
    assert all(x < 24 for place in places for x, _ in place)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_what_a_unit_starts_can_be_typed(unit: Path) -> None:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.read(unit)
    program, *words = shlex.split(parser["Service"]["execstart"])
    words = ["agent", *words] if program.endswith("amends-agent") else words
    arguments.parser([verb.words for verb in LOCAL], []).parse_args(words)


def test_the_image_copies_what_the_wheel_is_made_of_and_starts_a_verb() -> None:
    text = (DEPLOY / "container" / "Containerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (?!--)(.*)$", text, re.MULTILINE) for word in line.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied), copied
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {name.partition("/")[0] for name in packages["packages"]} | set(packages["force-include"])
    assert needed <= copied
    assert json.loads(re.findall(r"^CMD (.*)$", text, re.MULTILINE)[0])[0] in {verb.words for verb in LOCAL}
    assert set(re.findall(r"AMENDS_[A-Z_]+", text)) <= variables()


def test_the_manifest_asks_for_what_the_server_answers() -> None:
    text = (DEPLOY / "kubernetes" / "amends.yaml").read_text()
    for variable in re.findall(r"name: (AMENDS_[A-Z_]+)", text):
        assert variable in variables()
    assert set(re.findall(r"path: (/[a-z]+),", text)) == {"/healthz", "/readyz"}
    port = HttpSettings().listen.rpartition(":")[2]
    assert set(re.findall(r"(?:containerPort|port): \"?(\d+)", text)) == {port}
    grace_s = int(re.findall(r"terminationGracePeriodSeconds: (\d+)", text)[0])
    drain_ms, _ = TIMING["drain_timeout_ms"]
    assert isinstance(drain_ms, int)
    assert grace_s * 1000 > drain_ms
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"image: amends:{version}" in text
    assert "enableServiceLinks: false" in text, "a service of that name would set variables that stop the start"
