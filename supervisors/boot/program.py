"""The `amends` program: the command line's client verbs, and the local ones that need more than a NATS client.

What a local verb needs is imported when it is typed: a client and a refusal load no server's library.
"""
# ruff: noqa: PLC0415

import argparse
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from adapters.cli.main import ask_runtime
from adapters.cli.main import main as command_line
from amends.domain.domain import requests_of
from amends.runtime.trunk import TrunkFailed
from amends.values.errors import BadConfiguration, BadDomain, Fenced, Unavailable
from supervisors import logs
from supervisors.boot.environment import check_environment, is_external, open_standard_streams
from supervisors.nats_options import nats_options
from supervisors.paths import told
from supervisors.rental import RENTAL
from supervisors.settings import Settings, check_serving, check_variables, load

Work = Callable[[argparse.Namespace], Coroutine[Any, Any, int]]
DONE, REFUSED, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130
log = logging.getLogger("amends.boot")
USUAL = Path("amends.toml")  # what `amends init` writes
SERVICES = ("run", "agent", "provider nfs", "fleet")  # what they say on standard error is a log
FIRST_WORDS = tuple(name.partition(" ")[0] for name in SERVICES)
# Each end by an error: its status, and what is said behind the error's own words.
ENDINGS: tuple[tuple[type[Exception], int, str], ...] = (
    (BadConfiguration, USAGE, ""),
    (BadDomain, USAGE, ""),
    (Fenced, REFUSED, "; this runtime has stopped"),
    (TrunkFailed, REFUSED, "; the log says why. Start it again: nothing that was committed is lost"),
    (Unavailable, UNREACHABLE, ""),
    (OSError, REFUSED, ""),
)
ENDS = tuple(kind for kind, _, _ in ENDINGS)


async def run(config: Path | None, *, accept_new_ssh_key: bool = False) -> int:
    """`amends run`; exit status."""
    check_environment()
    settings = load(config, os.environ)
    check_serving(settings)
    nats_options(settings)  # what is wrong with its files is said before anything is made
    logs.configure(os.environ, level=settings.log.level, shape=settings.log.format)
    from supervisors.boot.serving import serve

    return await serve(settings, accept_new_ssh_key=accept_new_ssh_key)


async def _init(o: argparse.Namespace) -> int:
    from supervisors.boot.init import init

    def names(text: str | None) -> list[str]:
        return [name.strip() for name in text.split(",")] if text is not None else []

    for line in init(o.folder or Path(), names(o.nodes), names(o.providers), operator=o.operator):
        print(line)
    return DONE


async def _check(o: argparse.Namespace) -> int:
    check_environment()
    from supervisors.boot.checking import check

    if o.config is None and USUAL.exists():
        print(f"{USUAL} is not read: no verb does without --config {USUAL}; what follows is of the defaults")
    return await check(load(o.config, os.environ))


async def _upgrade(o: argparse.Namespace) -> int:
    from supervisors.boot.checking import check

    return await check(load(o.config, os.environ), upgrade=True)


async def _demo(o: argparse.Namespace) -> int:
    from supervisors.demo import demo

    if forgotten := forget_settings(os.environ):
        print(f"amends: a demo has settings of its own: {', '.join(forgotten)} not looked at", file=sys.stderr)
    return await demo(row=o.row or "", slow=o.slow, keep=o.keep, nodes=o.nodes or 20, state=str(o.state_dir or ""))


def forget_settings(environ: MutableMapping[str, str]) -> list[str]:
    """Take out what is set for a runtime of one's own, and not for those of a demo; returns the names."""
    found = sorted(name for name in environ if name.startswith("AMENDS_") and not name.startswith("AMENDS_LOG_"))
    for name in found:
        del environ[name]
    return found


async def _agent(o: argparse.Namespace) -> int:
    from supervisors import agent

    return await agent.serve(o.node, o.nats, o.state, o.interval_ms, o.mounts)


async def _provider(o: argparse.Namespace) -> int:
    from supervisors import provider

    return await provider.serve(o)


async def _fleet(o: argparse.Namespace) -> int:
    from supervisors import fleet

    return await fleet.run(o)


async def _restore(o: argparse.Namespace) -> int:
    check_environment()
    settings = load(o.config, os.environ)
    from supervisors.boot.restore import restore

    return await restore(settings, o.reason)


async def _archive(o: argparse.Namespace) -> int:
    from supervisors.boot.archive import archive

    return await archive(_settings(o), o.before, o.to, drop=o.drop, unexported=o.unexported)


async def _audit_verify(o: argparse.Namespace) -> int:
    from supervisors.boot.audit_verifier import verify_audit_log

    return await verify_audit_log(_settings(o), o.anchors, o.public_key or "", o.archives)


async def _trace_verify(o: argparse.Namespace) -> int:
    from supervisors.boot.verifiers import verify_traces

    return await verify_traces(_settings(o), o.jaeger, o.otlp_file)


def _simulate(o: argparse.Namespace) -> int:
    from supervisors.simulation import program

    if o.trace is None:
        return program.simulate(o)
    from supervisors.boot import simulated_traces

    return program.simulate(o, write=simulated_traces.write)


def _prove(o: argparse.Namespace) -> int:
    from supervisors.simulation import program

    return program.prove_rows(o)


def _completion(o: argparse.Namespace) -> int:
    from adapters.cli import arguments, completion

    if o.shell not in completion.SHELLS:
        return _say(f"completion: {o.shell!r} is none of {', '.join(completion.SHELLS)}", USAGE)
    print(completion.script(arguments.parser(_local(), o.verbs), o.shell))
    return DONE


def _local() -> Mapping[str, Callable[[argparse.Namespace], int]]:
    table: dict[str, Work] = {
        "run": lambda o: run(o.config, accept_new_ssh_key=o.accept_new_ssh_key),
        "init": _init,
        "check": _check,
        "upgrade": _upgrade,
        "demo": _demo,
        "agent": _agent,
        "provider nfs": _provider,
        "fleet": _fleet,
        "restore": _restore,
        "archive": _archive,
    }
    verifiers: dict[str, Work] = {"audit verify": _audit_verify, "trace verify": _trace_verify}
    return (
        {name: _blocking(work, logs.last_word if name in SERVICES else _print) for name, work in table.items()}
        | {name: _verifying(name, work) for name, work in verifiers.items()}
        | {"simulate": _in_no_loop(_simulate), "prove": _in_no_loop(_prove), "completion": _completion}
    )


def _verifying(words: str, work: Work) -> Callable[[argparse.Namespace], int]:
    """A verifier reads the database itself; where only the runtime knows the way to it, the runtime is asked."""

    def call(options: argparse.Namespace) -> int:
        settings = _settings(options)
        if settings.postgres.dsn or not is_external(settings):
            return _blocking(work, _print)(options)
        if any(getattr(options, name, None) for name in ("jaeger", "otlp_file", "anchors", "archives")):
            return _say(
                "the runtime's Postgres is not its own, and its records are read for this: give --config, or "
                "AMENDS_POSTGRES_DSN with the DSN that the runtime has", USAGE,
            )  # fmt: skip
        return ask_runtime(words, Path(settings.state_dir))

    return call


def _settings(options: argparse.Namespace) -> Settings:
    state_dir = {"AMENDS_STATE_DIR": str(options.state_dir)} if options.state_dir else {}
    return load(options.config, {**os.environ, **state_dir})


def _blocking(work: Work, say: Callable[[object], None]) -> Callable[[argparse.Namespace], int]:
    """The verb in an event loop, its errors as a line and an exit status."""

    def call(options: argparse.Namespace) -> int:
        import uvloop

        try:
            return uvloop.run(work(options))
        except KeyboardInterrupt:
            return DONE
        except BrokenPipeError:
            raise  # whoever read what we say has seen enough
        except ENDS as error:
            say(_told(error))
            return next(status for kind, status, _ in ENDINGS if isinstance(error, kind))
        except Exception:
            if say is not logs.last_word:
                raise
            log.exception("ended by a defect; start it again, nothing that was committed is lost, and report this")
            return REFUSED

    return call


def _told(error: BaseException) -> str:
    text = told(error) if isinstance(error, OSError) else str(error)
    return text + next(more for kind, _, more in ENDINGS if isinstance(error, kind))


def _in_no_loop(work: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """The verb as it is, for one that brings loops of its own."""

    def call(options: argparse.Namespace) -> int:
        try:
            return work(options)
        except BadConfiguration as error:
            return _say(error, USAGE)
        except BrokenPipeError:
            raise
        except OSError as error:
            return _say(_told(error), REFUSED)
        except KeyboardInterrupt:
            return INTERRUPTED

    return call


def _print(error: object) -> None:
    print(f"amends: {error}", file=sys.stderr)


def _say(error: object, status: int) -> int:
    _print(error)
    return status


def main() -> int:
    """The entry point."""
    open_standard_streams()
    logs.configure(os.environ)
    try:
        check_variables(os.environ)
    except BadConfiguration as error:
        is_service = next((word for word in sys.argv[1:] if not word.startswith("-")), "") in FIRST_WORDS
        (logs.last_word if is_service else _print)(error)
        return USAGE
    return command_line(sys.argv[1:], _local(), requests_of((RENTAL,)).values())
