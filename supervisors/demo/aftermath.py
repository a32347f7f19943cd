"""What an earlier demo left when it was killed on the same state directory: its own breakage, put right by hand.

Only what the demo itself broke or rented is touched; what the runtime owed, it has already driven by itself.
"""

from supervisors.demo.site import Site

DROP_TRIGGER = "DROP TRIGGER IF EXISTS demo_refuse ON allocations; DROP FUNCTION IF EXISTS demo_refuse()"
REASON = "an earlier demo was killed here"


async def drop_trigger(site: Site) -> bool:
    """Let the database accept activations again; whether it did not. Called before anything else is asked."""
    left = await site.value("SELECT count(*) FROM pg_trigger WHERE tgname = 'demo_refuse'")
    await site.sql.execute(DROP_TRIGGER)
    return bool(left)


async def give_back(site: Site) -> int:
    """Release what was rented and settle what was left to an operator; how many of both. The machines must be up."""
    rented = await site.rows(
        "SELECT allocation_id FROM public_v1.allocation WHERE state NOT IN ('releasing', 'released', 'failed')"
    )
    for row in rented:
        await site.ask("cmd.allocation.release", {"allocation_id": row["allocation_id"]})
    stuck = await site.rows("SELECT attachment_id FROM public_v1.attachment WHERE state = 'detach_failed'")
    for row in stuck:
        await site.ask("ops.attachment.retry_detach", {"attachment_id": row["attachment_id"], "reason": REASON})
    await site.until_sql(
        "earlier rentals have ended",
        "SELECT count(*) = 0 FROM public_v1.allocation WHERE state NOT IN ('released', 'failed')",
        timeout_s=30,
    )
    await site.until_sql(
        "what is owed is done or left to an operator",
        """SELECT count(*) = 0 FROM public_v1.allocation a
           WHERE cleanup_pending AND NOT EXISTS (SELECT FROM public_v1.ops_case c
             WHERE c.target_ref = 'allocation:' || a.allocation_id AND c.state = 'open')""",
        timeout_s=30,
    )
    cases = await site.rows(
        """SELECT allocation_id FROM public_v1.ops_case c
           JOIN public_v1.allocation a ON c.target_ref = 'allocation:' || a.allocation_id
           WHERE c.kind = 'cleanup_exhausted' AND c.state = 'open'"""
    )
    for row in cases:
        await site.ask("ops.cleanup.retry", {"allocation_id": row["allocation_id"], "reason": REASON})
    await _let_back(site)
    return len(rented) + len(stuck) + len(cases)


async def _let_back(site: Site) -> None:
    """Nodes on whose port somebody else answered between the two demos; by now they are known where they are."""
    met = await site.rows(
        """SELECT node_id FROM public_v1.node
           WHERE state = 'quarantined' AND quarantine_reasons::text LIKE '%host_key_mismatch%'"""
    )
    for row in met:
        await site.until_sql(
            f"{row['node_id']} owes nothing", "SELECT NOT dirty FROM public_v1.node WHERE node_id = $1", row["node_id"]
        )
        await site.ask("ops.node.return_to_service", {"node_id": row["node_id"], "reason": REASON})
