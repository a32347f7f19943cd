"""The environment Amends runs in: its four package names must be its own."""

from importlib.metadata import packages_distributions

from amends.values.errors import BadConfiguration

PACKAGES = ("amends", "actors", "supervisors", "adapters")


def check_environment() -> None:
    """Raise `BadConfiguration` where another distribution owns one of our packages' names."""
    owners = packages_distributions()
    for package in PACKAGES:
        others = sorted({name for name in owners.get(package, []) if name.lower() != "amends"})
        if others:
            raise BadConfiguration(
                f"the package {package!r} belongs to {', '.join(others)} here too: "
                "install Amends into an environment of its own"
            )
