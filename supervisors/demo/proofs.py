"""The demo's last scene: the board, the proofs, and where to look further."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from supervisors.demo.result import Result
from supervisors.demo.site import Site
from supervisors.demo.teller import Teller

EXHAUSTED = ("R13", "R04 + operator")
TRACE_FILE = "amends-demo-traces.json"


async def prove(site: Site, tell: Teller, results: Sequence[Result]) -> bool:
    """Print board, proofs and links; whether every proof holds."""
    await tell.scene("The board")
    await tell.table(
        ("row", "broken", "undone", "outcome", "time"),
        [(r.row, r.broken, r.undone, r.outcome, f"{r.ms:,.0f} ms") for r in results],
    )
    if any(r.row in EXHAUSTED for r in results):
        await tell.say("of R13, and of R04 with the operator, a first run has exhausted its tries and stays failed;")
        await tell.say("the one that has recovered is what an operator had tried again")
    await tell.scene("Proofs")
    audit = await site.ask("ops.audit.verify", {})
    await tell.tick(f"audit chain: {audit['entries']} entries, head {audit['head_hash'][:12]}…", good=audit["valid"])
    traces = await site.ask("ops.trace.verify", {})
    await tell.tick(
        f"traces: {traces['compensations']} compensations ↔ spans, {traces['spans']} spans, every parent exists",
        good=traces["valid"],
    )
    for line in traces["differences"][:5]:
        await tell.say(line)
    ledger = await _ledger(site)
    await tell.tick(
        f"ledger: {ledger['entries']} entries of {ledger['meters']} meters and {ledger['payments']} payments reckoned "
        f"anew, {ledger['mirrored']} credits at Stripe", good=not ledger["wrong"],
    )  # fmt: skip
    violations = await site.rows("SELECT * FROM public_v1.invariant_violation")
    await tell.tick(f"invariants: {len(violations)} violations", good=not violations)
    file = Path(TRACE_FILE).absolute()
    exported = await site.ask("ops.trace.export", {"limit": 200})
    await tell.scene("Look further")
    try:
        file.write_text(json.dumps(exported["traces"]), encoding="utf-8")
        await tell.say(f"open in Jaeger's UI (upload): {file}")
    except OSError as error:  # the story has been told and proved; this is only its souvenir
        await tell.say(f"the traces could not be kept for Jaeger's UI: {file}: {error.strerror}")
    if not site.keeps:
        await tell.say("keep it running and look around: ./run demo --keep")
    return bool(audit["valid"] and traces["valid"] and not ledger["wrong"] and not violations)


async def _ledger(site: Site) -> Counter[str]:
    """What `amends ledger verify` counts, and how much of it is wrong."""
    found = Counter[str]()
    cursor: str | None = "meters:"
    while cursor is not None:
        page = await site.ask("ops.ledger.verify", {"cursor": cursor})
        found.update({**page["checked"], "wrong": page["wrong_count"]})
        cursor = page["cursor"]
    return found
