"""Errors by blame: the caller's (`Rejected`), the world's (`Unavailable`, `Refused`, `Locked`), ours (`Bug`).

The table of codes is `api.md` section 3; drivers' errors are mapped to these once, at an adapter's edge.
"""

from typing import Any

# code → HTTP number (api.md 3). Retryable: 429, 503, 504.
CODES: dict[str, int] = {
    "invalid_request": 400, "bad_signature": 400, "unauthenticated": 401, "forbidden": 403,
    "not_found": 404, "already_exists": 409, "illegal_transition": 409, "debt_open": 409,
    "version_mismatch": 409, "idempotency_mismatch": 409, "window_after_stop": 422, "window_not_due": 422,
    "throttled": 429, "internal": 500, "db_unavailable": 503, "bus_unavailable": 503, "draining": 503,
    "deadline_exceeded": 504,
}  # fmt: skip
# Refusals that a repeat of the same key gets again for 7 days; every other one is judged anew (api.md 3).
KEPT = frozenset(("already_exists", "idempotency_mismatch", "window_after_stop", "window_not_due"))
RETRYABLE = frozenset((429, 503, 504))


class Rejected(Exception):
    """The caller's request cannot be done; nothing has changed. `code` is one of `CODES`."""

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, details
        self.http = CODES[code]

    def body(self) -> dict[str, Any]:
        """The `error` object of a reply (api.md 3)."""
        return {
            "code": self.code,
            "http": self.http,
            "message": self.message,
            "retryable": self.http in RETRYABLE,
            "details": self.details,
        }


REQUIREMENT = "requirement"  # the code of `Refused` where what a turn requires of another entity does not hold
CONSUMED = "consumed"  # the code of `Refused` for a durable message that was taken in before


class TurnFailed(Exception):
    """A turn did not commit. Nothing of it is in the database."""


class Refused(TurnFailed):
    """The database refuses this turn's rows (a constraint, a trigger): the turn itself fails (R03)."""

    def __init__(self, code: str, message: str, constraint: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.constraint = code, message, constraint


class Locked(TurnFailed):
    """A foreign session holds a row of the batch; the turn waits, its neighbours do not (R03)."""


class Fenced(Exception):
    """Another runtime holds a higher epoch: this one may write nothing more."""


class Unavailable(Exception):
    """An outside part (Postgres, NATS) cannot be reached now; nothing is known to be wrong with the work."""


class TooSlow(Unavailable):
    """The part is there, and what it was asked takes longer than it may, or is more."""


class Bug(Exception):
    """The program broke its own rule."""


class BadDomain(Exception):
    """A domain's data does not hold together; the message names what and where. The start is refused."""


class BadConfiguration(Exception):
    """The configuration is wrong; the message names file, line or key, and the reason."""
