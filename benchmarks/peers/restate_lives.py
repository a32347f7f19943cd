"""Three-step lives as a service of Restate: for Restate's own environment, it imports nothing of ours.

`restate_peer.py` serves it with granian, over HTTP/2. Restate's documentation takes any ASGI server; with this one a
life costs half of what it costs with hypercorn, which its examples use.
"""
# Its library is in that environment only, never in ours: to the type checkers it is not there, what comes of it is Any.
# mypy: disable-error-code="import-not-found,untyped-decorator"
# pyright: reportMissingImports=false

import restate

lives = restate.Service("lives")


async def act(number: int) -> int:
    """One step that does nothing, or what undoes one."""
    return number


async def fail(number: int) -> int:
    """The step that fails, for good: Restate tries nothing again after this error."""
    raise restate.TerminalError(f"step {number} was to fail")


@lives.handler()
async def life(ctx: restate.Context, doomed: bool) -> str:
    """Three steps; where the third fails, those before are undone, the last one first."""
    acted = []
    try:
        for number in (1, 2, 3):
            await ctx.run_typed(f"step {number}", fail if doomed and number == 3 else act, number=number)
            acted.append(number)
    except restate.TerminalError:
        for number in reversed(acted):
            await ctx.run_typed(f"undo {number}", act, number=number)
        return "undone"
    return "done"


app = restate.app([lives])
