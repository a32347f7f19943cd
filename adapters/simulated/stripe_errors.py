"""How the simulated Stripe refuses: its error envelope, and whether the endpoint had begun.

Follows "Errors" of Stripe's API reference: a JSON object `error` with `type`, `code`, `message`, `param`.
"""

from typing import Any

from msgspec import Struct

Thing = dict[str, Any]  # an object of the API, as its JSON


class Request(Struct, frozen=True):
    """A request as Stripe takes it: parameters nested, strings or what they stand for; `key` the idempotency key."""

    method: str
    path: str
    params: Thing = {}
    key: str = ""
    token: str = ""


class Reply(Struct, frozen=True):
    """What is answered. `body` is JSON."""

    status: int
    body: Thing
    headers: dict[str, str] = {}


class Refusal(Exception):
    """The request is refused. `began`: the endpoint had begun, so the answer is kept under the idempotency key."""

    def __init__(
        self, status: int, message: str, *, kind: str = "invalid_request_error", code: str = "", param: str = "",
        began: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.began = status, began
        self.body: Thing = {"error": {"type": kind, "message": message}}
        self.body["error"].update({name: said for name, said in (("code", code), ("param", param)) if said})


def invalid(message: str, param: str = "", code: str = "parameter_invalid") -> Refusal:
    """A parameter that fails validation: nothing has begun, and nothing is kept."""
    return Refusal(400, message, code=code, param=param, began=False)


def missing(kind: str, identifier: str, param: str, status: int = 404) -> Refusal:
    """There is no such object: 404 where the path names it, 400 where a parameter does."""
    return Refusal(status, f"No such {kind}: '{identifier}'", code="resource_missing", param=param)


def impossible(message: str, code: str = "") -> Refusal:
    """The object's state does not allow it."""
    return Refusal(400, message, code=code)


def full(what: str) -> Refusal:
    """The simulator keeps no more."""
    return Refusal(400, f"the simulator keeps no more {what}", kind="api_error", code="simulator_full", began=False)
