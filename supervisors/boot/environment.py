"""The environment Amends runs in: its four package names must be its own, and its standard streams be there."""

import os
from importlib.metadata import distributions
from pathlib import Path

from adapters.cli.settings import NoRuntime, endpoints
from amends.values.errors import BadConfiguration
from supervisors.settings import Settings

PACKAGES = ("amends", "actors", "supervisors", "adapters")
STANDARD_STREAMS = (0, 1, 2)


def open_standard_streams() -> None:
    """Open those that were closed when we were started (`<&-`): what takes their numbers otherwise ends in an abort."""
    for number in STANDARD_STREAMS:
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)


def check_environment() -> None:
    """Raise `BadConfiguration` where another distribution owns one of our packages' names."""
    owners: dict[str, set[str]] = {package: set() for package in PACKAGES}
    for distribution in distributions():
        listed = "\n" + (distribution.read_text("RECORD") or "")  # `packages_distributions` parses them all: 0.2 s
        declared = (distribution.read_text("top_level.txt") or "").split()
        for package, names in owners.items():
            if package in declared or f"\n{package}/" in listed or f"\n{package}.py," in listed:
                names.add(distribution.metadata["Name"])
    for package, names in owners.items():
        if others := sorted(name for name in names if name.lower() != "amends"):
            raise BadConfiguration(
                f"the package {package!r} belongs to {', '.join(others)} here too: "
                "install Amends into an environment of its own"
            )


def is_external(settings: Settings) -> bool:
    """Whether the runtime of that state directory works on a Postgres that is not its own."""
    try:
        return "host=" not in endpoints(Path(settings.state_dir)).get("postgres_dsn", "host=")
    except NoRuntime:  # whoever asks it hears why
        return False
