"""A read of a namespace's usage asks its provider first what it can do: both are known at once, or neither (R14)."""

from msgspec.structs import replace

from amends.ports.steps import Outcome, StepCall, StepRunner

USAGE, CAPABILITIES = "provider.usage", "provider.capabilities"


class ProviderReads:
    """Implements `amends.ports.steps.StepRunner` for `provider.*` on another one; one time-out holds for both."""

    def __init__(self, steps: StepRunner) -> None:
        self._steps = steps

    async def run(self, call: StepCall) -> Outcome:
        """A usage read's data has `capabilities` beside it."""
        if call.name != USAGE:
            return await self._steps.run(call)
        can = await self._steps.run(replace(call, name=CAPABILITIES))
        if can.kind != "done":
            return can
        used = await self._steps.run(call)
        return replace(used, data={**used.data, "capabilities": can.data}) if used.kind == "done" else used
