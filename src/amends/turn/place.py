"""Where a turn's work hangs: its trace, and the span it is a child of. Pure."""

import hashlib

from amends.domain.kinds import ActorState
from amends.turn.messages import Envelope
from amends.values import ids


def place_of(state: ActorState | None, env: Envelope, seed: bytes) -> tuple[str, str]:
    """(trace id, span id) of a turn, the span "" where it is the first of its trace.

    Timers carry no trace of their own: their work belongs to the entity's. What the runtime begins by itself (a
    heartbeat, a lag alarm) begins a trace (U4). What follows the work of a run's action hangs below the run's root: the
    action covers its own work and nothing that comes after it. In another's trace nothing hangs where one's own does.
    """
    own = state.trace_id if state is not None else ""
    trace_id = env.trace_id or own or hashlib.md5(seed, usedforsecurity=False).hexdigest()
    runs = state.runs.values() if state is not None else ()
    root = next((ids.span_id("run", run.recovery_id) for run in runs if run.trace_id == trace_id), "")
    return trace_id, root or env.span_id or (state.span_id if state is not None and own == trace_id else "")
