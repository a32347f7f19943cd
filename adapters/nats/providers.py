"""Storage providers as the runtime asks them: one request and one reply for each step (api.md 7).

What a provider says is believed about itself only, and read with bounds (`provider_words.py`).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, ConnectionDrainingError, NoRespondersError
from nats.errors import Error as NatsError

from adapters.nats.provider_words import MAX_GRANTS, Reply, read_reply, told
from adapters.nats.publishing import traceparent
from amends.ports.steps import Outcome, StepCall
from amends.values.canonical import UNREADABLE

TIMEOUT: Final = "provider_timeout"
ABSENT: Final = "provider_absent"
MALFORMED: Final = "provider_malformed"
Data = dict[str, Any]
OWN: Final = ("asked_us", "wanted")  # of a comparison: what the runtime keeps for itself


class ProviderSteps:
    """The step runner `provider`. A usage step asks for capabilities too, in the time that is left (R10, R14)."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def run(self, call: StepCall) -> Outcome:
        """Ask; what is not answered within `call.timeout_ms` is unknown."""
        op, loop = call.name.removeprefix("provider."), asyncio.get_running_loop()
        ends = loop.time() + call.timeout_ms / 1000
        outcome = await self._ask(call, op, call.timeout_ms / 1000)
        if op == "usage" and outcome.kind == "done" and (left_s := ends - loop.time()) > 0:
            can = await self._ask(call, "capabilities", left_s)
            if can.kind == "done":
                return msgspec.structs.replace(outcome, data={**outcome.data, "capabilities": can.data})
        return outcome

    async def _ask(self, call: StepCall, op: str, timeout_s: float) -> Outcome:
        subject = f"amends.v1.provider.{call.args['provider_id']}.{op}"
        unsaid = (
            call.args if op == "capabilities" else ("provider_id",)
        )  # they are asked of the provider, of no namespace
        body = {name: value for name, value in call.args.items() if name not in (*unsaid, *OWN)}
        payload = msgspec.json.encode({**body, "runtime_epoch": call.epoch})
        headers = {"traceparent": traceparent((call.trace_id, call.span_id), call.step_id)}
        try:
            async with asyncio.timeout(timeout_s):
                message = await self._client.request(subject, payload, timeout=timeout_s, headers=headers)
        except NoRespondersError:
            return _nobody("nobody serves this provider")
        except (ConnectionClosedError, ConnectionDrainingError) as error:
            return _nobody(f"the runtime's connection is closed: {error}")
        except TimeoutError:
            return Outcome("unknown", TIMEOUT, "the provider gave no reply in time")
        except NatsError as error:
            return Outcome("unknown", TIMEOUT, told(f"the request may not have been sent: {error}"))
        return _outcome(op, message)


def _nobody(why: str) -> Outcome:
    return Outcome("failed", ABSENT, why, may_have_run=False, data={"retryable": True})


def _outcome(op: str, message: Msg) -> Outcome:
    try:
        reply = read_reply(message.data)
    except UNREADABLE as error:
        return _malformed(f"the reply cannot be read: {error}")
    if reply.status in ("error", "partial"):
        code = reply.code or ("partial" if reply.status == "partial" else "provider_error")
        data: Data = {"retryable": reply.retryable}
        if reply.status == "partial":
            data["partial"] = True
        return Outcome("failed", code, told(reply.message or ""), data=data)
    read = READ.get(op)
    found = read(reply) if read is not None and (reply.status or op in SAYS_ENOUGH) else None
    if found is None:
        return _malformed(f"the reply to {op} lacks what it must say")
    return Outcome("done", data=found)


def _malformed(why: str) -> Outcome:
    return Outcome("failed", MALFORMED, told(why), data={"retryable": True})


def _granted(reply: Reply) -> Data | None:
    if reply.source is None:
        return None
    return {"source": msgspec.to_builtins(reply.source), "observed": _observed(reply)}


def _verified(reply: Reply) -> Data | None:
    seen = reply.observed
    if seen is None or seen.granted is None or (seen.granted and not seen.mode):
        return None
    return _observed(reply)


def _observed(reply: Reply) -> Data:
    seen = reply.observed
    return (
        {}
        if seen is None or seen.granted is None
        else {"granted": seen.granted, "mode": (seen.mode or "") if seen.granted else ""}
    )


def _used(reply: Reply) -> Data | None:
    if reply.used_bytes is None or reply.as_of_us is None or reply.enforced is None:
        return None
    return {"used_bytes": reply.used_bytes, "as_of_us": reply.as_of_us, "enforced": reply.enforced}


def _can(reply: Reply) -> Data | None:
    if reply.modes is None:
        return None
    return {
        "modes": reply.modes, "multi_attach": reply.multi_attach,
        "mount_path_prefixes": reply.mount_path_prefixes, "enforcement": _word(reply.enforcement),
    }  # fmt: skip


def _listed(reply: Reply) -> Data | None:
    if reply.grants is None:
        return None
    return {"grants": msgspec.to_builtins(reply.grants), "whole": len(reply.grants) < MAX_GRANTS}


def _word(enforcement: str | bool | None) -> str:
    """A word for people; nothing is decided by it."""
    if isinstance(enforcement, str):
        return enforcement
    return {True: "on", False: "off", None: ""}[enforcement]


# What an op's reply must say; None where it does not.
READ: Final[Mapping[str, Callable[[Reply], Data | None]]] = {
    "grant": _granted, "verify": _verified, "revoke": lambda reply: {}, "usage": _used, "capabilities": _can,
    "grants": _listed,
}  # fmt: skip
SAYS_ENOUGH: Final = frozenset(("usage", "capabilities"))
