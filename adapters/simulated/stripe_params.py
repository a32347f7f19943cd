"""Parameters of a request to the simulated Stripe: the form encoding, and each read as its type.

Follows Stripe's form encoding (`metadata[order]=1`, `line_items[0][quantity]=2`), and its answer to a parameter that
an endpoint does not know (`parameter_unknown`).
"""

import re
from collections.abc import Iterable
from typing import Any, Final

from adapters.simulated.stripe_errors import Thing, invalid

MAX_PAIRS: Final = 500
MAX_DEPTH: Final = 5
_NAME: Final = re.compile(r"[^\[\]]+")
_INTEGER: Final = re.compile(r"-?[0-9]{1,15}", re.ASCII)
_CURRENCY: Final = re.compile(r"[a-z]{3}", re.ASCII)


def nested(pairs: Iterable[tuple[str, str]]) -> Thing:
    """Pairs of a form as nested objects; a list is an object with the keys 0, 1, …"""
    found: Thing = {}
    for count, (name, value) in enumerate(pairs):
        steps = _NAME.findall(name)
        if count >= MAX_PAIRS or not 0 < len(steps) <= MAX_DEPTH:
            raise invalid("too many parameters, or nested too deep")
        into = found
        for step in steps[:-1]:
            into = into.setdefault(step, {})
            if not isinstance(into, dict):
                raise invalid(f"Invalid object: {name}", name)
        into[steps[-1]] = value
    return found


class Params:
    """Takes parameters one by one; `done` refuses what is left over. All raise `Refusal`."""

    def __init__(self, given: Thing) -> None:
        self._left = dict(given)

    def text(self, name: str, default: str = "") -> str:
        """A string, `default` if it is not given."""
        value = self._left.pop(name, default)
        if not isinstance(value, str):
            raise invalid(f"Invalid string: {name}", name)
        return value

    def required(self, name: str) -> str:
        """A string that must be there."""
        value = self.text(name)
        if not value:
            raise invalid(f"Missing required param: {name}.", name, "parameter_missing")
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer; it must be there when there is no default."""
        value: Any = self._left.pop(name, default)
        if value is None:
            raise invalid(f"Missing required param: {name}.", name, "parameter_missing")
        if isinstance(value, bool) or not _INTEGER.fullmatch(str(value)):
            raise invalid(f"Invalid integer: {value}", name, "parameter_invalid_integer")
        return int(value)

    def flag(self, name: str) -> bool:
        """A boolean, false if it is not given."""
        value = str(self._left.pop(name, "false")).lower()
        if value not in ("true", "false"):
            raise invalid(f"Invalid boolean: {value}", name)
        return value == "true"

    def choice(self, name: str, *allowed: str) -> str:
        """One of these, the first if it is not given."""
        value = self.text(name, allowed[0])
        if value not in allowed:
            raise invalid(f"Invalid {name}: must be one of {', '.join(allowed)}", name)
        return value

    def currency(self) -> str:
        """A currency in lower case, as Stripe shows it."""
        value = self.required("currency").lower()
        if not _CURRENCY.fullmatch(value):
            raise invalid(f"Invalid currency: {value}", "currency")
        return value

    def metadata(self) -> dict[str, str]:
        """Metadata: at most 50 keys of 40 characters, values of 500."""
        value = self.nested("metadata")
        if len(value) > 50 or any(len(key) > 40 or len(str(said)) > 500 for key, said in value.items()):
            raise invalid("Metadata has at most 50 keys of 40 characters with values of 500", "metadata")
        return {key: str(said) for key, said in value.items()}

    def nested(self, name: str) -> Thing:
        """An object or list, empty if it is not given."""
        value = self._left.pop(name, {})
        if not isinstance(value, dict):
            raise invalid(f"Invalid object: {name}", name)
        return value

    def names(self) -> list[str]:
        """What has not been taken yet."""
        return list(self._left)

    def done(self) -> None:
        """Nothing else was given."""
        if self._left:
            name = next(iter(self._left))
            raise invalid(f"Received unknown parameter: {name}", name, "parameter_unknown")
