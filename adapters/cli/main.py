"""The entry of `amends`: what was typed → a local verb, or requests to the runtime and a page of text.

Exit status: 0 done, 1 refused, 2 usage, 3 unreachable. Local verbs are handed in by whoever composes the program.
"""

import argparse
import asyncio
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from adapters.cli import arguments, forecast, money, proofs, tables, trace, why
from adapters.cli.client import Api, Refused, Unreachable, connected
from adapters.cli.settings import NoRuntime, connection
from adapters.cli.verbs import QUESTIONS, LocalVerb, Verb, all_verbs
from amends.domain.api import Request
from amends.values.text import printable

DONE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
INTERRUPTED: Final = 130
CUT: Final = 141  # as of a program that SIGPIPE ends: what was to be said did not come to its end
MINTED: Final = {
    "allocation_id": "allocation", "notification_id": "notification", "outbox_id": "outbox", "case_id": "ops_case",
}  # fmt: skip
LocalVerbs = Mapping[str, Callable[[argparse.Namespace], int]]


def main(argv: Sequence[str], local_verbs: LocalVerbs, requests: Iterable[type[Request]]) -> int:
    """Do what was typed; returns the exit status. `requests`: the commands of the runtime that is asked."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no such letter is no reason to fail
    try:
        typed = arguments.parser(local_verbs, all_verbs(requests), argv).parse_args(list(argv))
    except SystemExit as ended:  # argparse has said what is wrong, or has printed the help
        return int(ended.code or 0)
    verb: Verb | LocalVerb = typed.verb
    if isinstance(verb, LocalVerb):
        act = local_verbs.get(verb.words)
        if act is None:
            return _failed(USAGE, "usage", f"`amends {verb.words}` is not part of this release", "")
        try:
            status = act(typed)
            sys.stdout.flush()
        except BrokenPipeError:
            _seen_enough()
            return CUT
        return status
    return _client_verb(verb, typed)


def ask_runtime(words: str, state_dir: Path) -> int:
    """Ask the local runtime what a local verb of the same words cannot find out by itself; exit status."""
    verb = next(verb for verb in QUESTIONS if verb.words == words)
    typed = argparse.Namespace(verb=verb, nats=None, token=None, state_dir=state_dir, timeout=300.0, json=False)
    return _client_verb(verb, typed)


def _client_verb(verb: Verb, typed: argparse.Namespace) -> int:
    try:
        if getattr(typed, "watch", None):
            return asyncio.run(_watch(verb, typed))
        text, status = asyncio.run(_talk(verb, typed))
    except arguments.Usage as error:
        return _failed(USAGE, "usage", str(error), "")
    except Refused as error:
        return _failed(REFUSED, error.code, str(error), error.advice)
    except (NoRuntime, Unreachable) as error:
        return _failed(UNREACHABLE, "unreachable", str(error), "")
    except KeyboardInterrupt:
        return INTERRUPTED
    _print(text)
    return status


def _print(text: str) -> None:
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _seen_enough()


def _seen_enough() -> None:
    """Whoever read it reads no more, as `head` does: what is still said goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(status: int, code: str, message: str, advice: str) -> int:
    print(f"amends: {code}: {printable(message)}" + (f" ({advice})" if advice else ""), file=sys.stderr)
    return status


async def _watch(verb: Verb, typed: argparse.Namespace) -> int:
    """Ask again and again until interrupted; on a terminal the new page takes the place of the one before."""
    while True:
        text, _ = await _talk(verb, typed)
        _print(("\x1b[H\x1b[2J" if sys.stdout.isatty() else "") + text)
        await asyncio.sleep(max(0.2, typed.watch))


async def _talk(verb: Verb, typed: argparse.Namespace) -> tuple[str, int]:
    data = arguments.filters_of(typed) if verb.show == "rows" else arguments.data_of(verb, typed)
    settings = connection(typed.nats, typed.token, typed.state_dir, os.environ)
    async with connected(settings, typed.timeout) as api:
        await _complete(api, verb, data)
        if verb.show == "why":
            return await _why(api, typed), DONE
        if verb.show == "trace":
            return await _trace(api, typed), DONE
        if verb.changes:
            return _reply(await _send(api, verb, typed, data), typed), DONE
        if verb.show == "rows":
            return await _list(api, verb, typed, data), DONE
        if verb.show == "statement":
            answer = await money.statement(api, verb.subject, data)
        elif verb.show in PAGED:
            answer = await PAGED[verb.show](api, verb.subject, data)
        else:
            answer = await api.ask(verb.subject, data)
        if verb.show == "case" and not typed.json:
            case = answer.get("case", {})
            answer["settle"] = why.settle_lines(case, await why.target(api, case), typed.verbs) if case else []
    status = REFUSED if verb.show in ("verdict", "ledger") and not answer.get("valid") else DONE
    return _json(answer) if typed.json else SHOW[verb.show](verb, answer), status


async def _complete(api: Api, verb: Verb, data: dict[str, Any]) -> None:
    """Ids that were typed in part become whole where only one begins so."""
    for field in verb.fields:
        if field.option or field.name not in data:
            continue
        entity = verb.subject.split(".")[1] if field.name == "id" else MINTED.get(field.name, "")
        if verb.subject.endswith(".get") or entity in MINTED.values():
            data[field.name] = await api.named(entity, data[field.name])


async def _send(api: Api, verb: Verb, typed: argparse.Namespace, data: dict[str, Any]) -> dict[str, Any]:
    return await api.command(verb.subject, data, key=typed.key or "", expected_version=typed.expected_version)


async def _list(api: Api, verb: Verb, typed: argparse.Namespace, data: dict[str, Any]) -> str:
    items: list[dict[str, Any]] = []
    cursor = None
    wanted = arguments.is_wanted(typed)
    older = arguments.is_older(typed, verb.columns)
    states = () if typed.where or typed.cursor else verb.states
    every_page = typed.all or typed.since or (states and typed.limit is None)
    for state in states or ("",):
        question = data | ({"state": state} if state else {})
        while True:
            page = await api.ask(verb.subject, question)
            rows = page.get("items", [])
            items += [row for row in rows if wanted(row) and not older(row)]
            if typed.since and not typed.oldest and all(map(older, rows)):
                cursor = None
                break  # what follows is older still
            cursor = page.get("cursor") or cursor
            if not page.get("cursor") or not every_page:
                break
            question["cursor"] = page["cursor"]
    if cursor and not every_page:
        # A cursor is a place in one list: it would lead a page of several on without their states.
        further = "" if states else f"--cursor {printable(str(cursor))}, or "
        print(f"amends: there are more: {further}--all", file=sys.stderr)
    if typed.sort:
        items = tables.ordered(items, typed.sort)
    if typed.json:
        return _json({"items": items, "cursor": None if every_page or states else cursor})
    return tables.table(items, verb.columns, _width())


async def _trace(api: Api, typed: argparse.Namespace) -> str:
    trace_id = await trace.trace_of(api, typed.id)
    found = await api.ask("ops.trace.export", {"trace_id": trace_id}) if trace_id else {"traces": {"data": []}}
    if not found["traces"]["data"]:
        raise Refused({"code": "not_found", "message": f"no trace is known of {typed.id}"}, "")
    return _json(found["traces"]) if typed.json else trace.page(found["traces"], trace_id)


async def _why(api: Api, typed: argparse.Namespace) -> str:
    story = await why.tell(api, typed.id, typed.verbs)
    if story is None:
        raise Refused({"code": "not_found", "message": f"nothing is known of {typed.id}"}, "")
    if typed.json:
        return _json({name: getattr(story, name) for name in story.__struct_fields__})
    return why.screen(story, _width())


def _reply(reply: dict[str, Any], typed: argparse.Namespace) -> str:
    data: dict[str, Any] = reply["data"] or {}
    if typed.json:
        return _json(data)
    plain: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            plain |= {key: one for key, one in value.items() if one not in (None, "", [], {})}
        else:
            plain[name] = value
    plain.setdefault("trace_id", reply.get("trace_id"))  # an entity has its own
    if reply.get("duplicate"):
        plain["duplicate"] = True
    return tables.record(plain)


def _record(verb: Verb, answer: dict[str, Any]) -> str:
    return tables.record(answer)


def _rental(verb: Verb, answer: dict[str, Any]) -> str:
    """An allocation, and while its customer is let in what to type for that."""
    page = tables.record(answer)
    access = answer.get("access")
    if not access or answer.get("state") != "active":
        return page
    host, port = access["host"], access["port"]
    place = host if port == 22 else f"[{host}]:{port}"
    lines = [f"ssh -p {port} {access['user']}@{host}", "", "Its line in known_hosts", f"{place} {access['host_key']}"]
    return "\n".join([page, "", "To log in", *(printable(line) for line in lines)])


def _statement(verb: Verb, answer: dict[str, Any]) -> str:
    return money.statement_page(answer, _width())


def _explanation(verb: Verb, answer: dict[str, Any]) -> str:
    return money.explanation_page(answer)


def _policy(verb: Verb, answer: dict[str, Any]) -> str:
    """What it is, its rules as a table, and its text as it was written."""
    said = {name: answer.get(name) for name in ("version", "sha256", "in_force", "currency", "problem")}
    text = "\n".join(printable(line) for line in str(answer.get("toml", "")).splitlines())
    return f"{tables.record(said)}\n\n{tables.table(answer.get('rules', []), verb.columns, _width())}\n\n{text}"


def _tree(verb: Verb, answer: dict[str, Any]) -> str:
    return tables.tree(answer.get("tree", {}))


def _matrix(verb: Verb, answer: dict[str, Any]) -> str:
    head = f"matrix {answer.get('version', '-')} · {answer.get('sha256', '-')}"
    return f"{printable(head)}\n{tables.table(answer.get('rows', []), verb.columns, _width())}"


def _case(verb: Verb, answer: dict[str, Any]) -> str:
    case = answer.get("case", {})
    lines = answer.get("settle", [])
    parts = [tables.record(case)]
    if lines:
        parts += ["", "What settles it", *(f"  {printable(line)}" for line in lines)]
    runbook = "\n".join(printable(line) for line in str(answer.get("runbook", "")).splitlines())
    return "\n".join([*parts, "", runbook]) if runbook else "\n".join(parts)


def _ledger(verb: Verb, answer: dict[str, Any]) -> str:
    return proofs.verdict_page(answer, _width())


def _backtest(verb: Verb, answer: dict[str, Any]) -> str:
    return proofs.backtest_page(answer, _width())


def _forecast(verb: Verb, answer: dict[str, Any]) -> str:
    return forecast.page(answer, _width())


PAGED: Final = {"ledger": proofs.verified, "backtest": proofs.backtested}
SHOW: Final[dict[str, Callable[[Verb, dict[str, Any]], str]]] = {
    "record": _record,
    "rental": _rental,
    "verdict": _record,
    "statement": _statement,
    "explanation": _explanation,
    "policy": _policy,
    "ledger": _ledger,
    "backtest": _backtest,
    "forecast": _forecast,
    "tree": _tree,
    "matrix": _matrix,
    "case": _case,
}


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False)


def _width() -> int | None:
    """The terminal's width; None where nobody looks, so that scripts get whole values."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or os.environ.get("COLUMNS") else None
