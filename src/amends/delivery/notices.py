"""The step runner `bus`: one publish of a notification is one try of its step (R07)."""

from typing import Any

import msgspec

from amends.ports.bus import Publisher
from amends.ports.steps import Outcome, StepCall


class NoticeRunner:
    """Implements `amends.ports.steps.StepRunner` for `notification.publish` over any publisher."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def run(self, call: StepCall) -> Outcome:
        """Publish; without an acknowledgement nobody knows."""
        args: dict[str, Any] = call.args
        payload = msgspec.json.encode(args["body"])
        trace = (call.trace_id, call.span_id)
        done = await self._publisher.publish(args["subject"], payload, args["message_id"], trace)
        if done.kind in ("ok", "duplicate"):
            return Outcome("done", data={"duplicate": done.kind == "duplicate"})
        return Outcome("unknown" if done.code == "ack_timeout" else "failed", done.code, done.message)
