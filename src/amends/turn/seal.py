"""Sealing a batch: every turn gets its number, every audit entry and every row its place in a chain. Pure."""

from collections.abc import Sequence
from functools import cache

import msgspec
from msgspec import Struct
from msgspec.structs import astuple

from amends.ports.journal import Commit, Head, StateWrite, Turn
from amends.values.canonical import chain_hash
from amends.values.errors import Bug
from amends.values.facets import GONE, Leaves, Leaving, chain, digest, leaves_text, leaving
from amends.values.records import AuditDraft, AuditRow
from amends.values.tables import facets_of

_details = msgspec.json.Encoder(order="deterministic").encode


def seal(turns: Sequence[Turn], head: Head, types: Sequence[type[Struct]]) -> Commit:
    """The commit of these turns on top of `head`; raises `Bug` for a row type that is not one of `types`."""
    commit = Commit(head, head, [], [], {}, requires=[])
    rows, states, seq = commit.rows, commit.states, head.seq
    audit_seq, prev = head.audit_seq, head.hash
    for turn in turns:
        seq += 1
        if turn.kind:
            states.append(
                StateWrite(
                    turn.kind, turn.id, turn.state, turn.version, turn.due_us, turn.body, turn.live, turn.ended_state
                )
            )  # fmt: skip
        commit.requires.extend(turn.requires)
        states.extend(turn.spawned)
        if turn.consumed:
            commit.consumed.append(turn.consumed)
        commit.consumed.extend(turn.set_aside)
        for row in turn.rows:
            rows.setdefault(type(row), []).append((row, seq))
        for draft in turn.audits:
            audit_seq += 1
            sealed = seal_audit(draft, audit_seq, prev)
            prev = sealed.hash
            rows.setdefault(AuditRow, []).append((sealed, seq))
    if unknown := rows.keys() - set(types):
        raise Bug(f"no domain declares the rows {sorted(row.__name__ for row in unknown)}")
    commit.leaves = leaves_text(_leaves(commit, types))
    link = chain(head.digest, seq, head.epoch, audit_seq, prev, commit.leaves)
    commit.after = Head(head.epoch, seq, audit_seq, prev, link)
    return commit


def _leaves(commit: Commit, types: Sequence[type[Struct]]) -> Leaves:
    """What the commit writes, in the order in which it is written."""
    leaves: Leaves = {}
    if commit.consumed:
        leaves["message"] = [part for message_id in commit.consumed for part in (message_id, GONE)]
    if commit.states:
        states = leaves["state"] = []
        for write in commit.states:
            states += (f"{write.kind}:{write.id}", digest((write.state, write.version, write.due_us, write.body)))
    for row_type in types:
        written = commit.rows.get(row_type)
        if not written:
            continue
        if leave := _leaving(row_type):
            rows = [(*astuple(row), seq) for row, seq in written]
            for each in leave:
                each(leaves, rows)
    return leaves


@cache
def _leaving(row: type[Struct]) -> tuple[Leaving, ...]:
    """What adds the leaves of a row type."""
    return leaving(row.__struct_fields__, facets_of(row))


def seal_audit(draft: AuditDraft, seq: int, prev_hash: str) -> AuditRow:
    """The entry with its sequence number and hash."""
    fields = audit_fields(draft, seq)
    return AuditRow(
        draft.audit_id, seq, draft.at_us, draft.actor, draft.action, draft.target_ref, draft.from_state,
        draft.to_state, draft.reason, draft.request_id, draft.trace_id, draft.recovery_trace_id, draft.epoch,
        _details(draft.details).decode(), prev_hash, chain_hash(prev_hash, fields),
    )  # fmt: skip


def audit_fields(draft: AuditDraft, seq: int) -> tuple[object, ...]:
    """What the hash of an audit entry is over, in this order; the verifier uses the same."""
    return (
        draft.audit_id, seq, draft.at_us, draft.actor, draft.action, draft.target_ref, draft.from_state,
        draft.to_state, draft.reason, draft.request_id, draft.trace_id, draft.recovery_trace_id, draft.epoch,
        draft.details,
    )  # fmt: skip
