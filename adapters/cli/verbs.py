"""The verbs of `amends` as tables: words → subject, fields, columns shown. Help and parsing follow from them.

Client verbs are requests of api.md 3 and 4; those that change something follow from their declarations. Local verbs
only have their options here; what they do is handed in.
"""

from collections.abc import Iterable
from typing import Final, Literal

from msgspec import Struct

from amends.domain.api import Field as RequestField
from amends.domain.api import Request, fields_of

Kind = Literal["text", "int", "time", "labels", "flag", "line", "file", "names", "path", "paths", "json"]


class Field(Struct, frozen=True):
    """One value of a request: where it goes (`name`, dots for nesting) and how it is typed.

    Without `option` it is positional. `line`: a text, or `@FILE` for its content; `json` the same, parsed;
    `file`: the content of that one; `time`: microseconds or ISO 8601.
    """

    name: str
    help: str
    option: str = ""
    kind: Kind = "text"
    required: bool = False
    default: str | int | None = None
    may_lack: bool = False  # of a positional one


class Verb(Struct, frozen=True):
    """A client verb: its words, the subject below `amends.v1.`, its fields and the columns of its table.

    `show`: rows (`items` as a table), verdict (refused unless `valid`), why (a page of several requests), and what
    their names say.
    """

    words: str
    subject: str
    help: str
    fields: tuple[Field, ...] = ()
    columns: tuple[str, ...] = ()
    show: Literal[
        "rows",
        "record",
        "rental",
        "tree",
        "matrix",
        "case",
        "why",
        "trace",
        "statement",
        "explanation",
        "policy",
        "ledger",
        "backtest",
        "forecast",
        "verdict",
    ] = "record"
    changes: bool = False
    states: tuple[str, ...] = ()  # what a list shows when nothing is asked for by --where


class LocalVerb(Struct, frozen=True):
    """A verb that this process does itself, if it was handed in; a client verb of the same words stands in for it."""

    words: str
    help: str
    fields: tuple[Field, ...] = ()


REASON: Final = Field("reason", "why; it stands in the audit with your name", "--reason", required=True)
CASE: Final = Field("case_id", "the case")


QUESTIONS: Final = (
    Verb("case list", "ops.case.list", "what waits for a person", (),
         ("case_id", "kind", "target_ref", "state", "opened_us"), "rows", states=("open", "retrying")),
    Verb("case show", "ops.case.show", "one case and its runbook", (CASE,), show="case"),
    Verb("tree", "ops.tree.show", "the live supervision tree", show="tree"),
    Verb("matrix", "ops.matrix.show", "the 14 rows with counts and outcomes", (),
         ("id", "name", "status", "entity", "runs", "recovered", "degraded", "failed", "open"), "matrix"),
    Verb("account statement", "qry.account.statement", "what an account was charged and credited", (
        Field("account_id", "the account"),
        Field("since_us", "from this time on", "--since", "time"),
        Field("until_us", "before this time", "--until", "time"),
    ), show="statement"),
    Verb("explain", "qry.ledger_entry.explain", "one screen: how an entry of the ledger came about", (
        Field("idempotency_key", "its key, such as debit:meter_…:1768464000000000"),
    ), show="explanation"),
    Verb("policy show", "ops.policy.show", "the credit policy in force: its rules and its text", (
        Field("sha256", "one that was in force earlier, by its hash", "--sha256"),
    ), ("id", "cause", "reason", "stop_at", "bp", "lookback_us", "early_full_refund_us", "minimum"), "policy"),
    Verb("policy evaluate", "ops.policy.evaluate", "what the policy makes of an end; nothing is written", (
        Field("rate_uminor_per_hour", "millionths of a minor unit per hour", "--rate", "int", required=True),
        Field("started_us", "when it became active", "--started", "time", required=True),
        Field("cause", "release, force_release, node_offline or node_rebooted", "--cause", required=True),
        Field("stop_us", "when it ended", "--stop", "time", required=True),
        Field("posted_through_us", "windows are posted up to here", "--posted-through", "time", required=True),
        Field("reason", "of a force-release: the reason code", "--reason"),
        Field("prior_credits", "minor units that the meter has given back before", "--prior-credits", "int"),
        Field("later_cause", "a cause that came later", "--later-cause"),
        Field("later_stop_us", "… and the end that it proves", "--later-stop", "time"),
    )),
    Verb("policy backtest", "ops.policy.backtest", "what another policy would have charged and credited", (
        Field("toml", "its policy file", kind="file"),
        Field("since_us", "rentals that ended from this time on", "--since", "time", required=True),
    ), show="backtest"),
    Verb("whatif node-loss", "ops.whatif.node_loss", "what it would come to if the node were lost now", (
        Field("node_id", "the node"),
    ), show="forecast"),
    Verb("whatif force-release", "ops.whatif.force_release", "what a forced release would come to now", (
        Field("allocation_id", "the allocation"),
        Field("reason_code", "what the policy goes by; operator_request if left out", "--reason-code"),
    ), show="forecast"),
    Verb("whatif command", "ops.whatif.command", "what a command to one entity would come to now", (
        Field("subject", "the command, such as ops.cleanup.retry"),
        Field("data", "what it would be sent with, as JSON or @FILE", "--data", "json", required=True),
    ), show="forecast"),
    Verb("whatif retire", "ops.whatif.node_retire", "what it would come to if the node were retired now", (
        Field("node_id", "the node"),
        Field("acknowledge_lost", "give up the cleanups it owes", "--acknowledge-lost", "flag"),
    ), show="forecast"),
    Verb("ledger verify", "ops.ledger.verify", "reckon every meter, payment and balance anew, and compare", (
        Field("account_id", "of this account only", "--account"),
    ), show="ledger"),
    Verb("audit verify", "ops.audit.verify", "check the chain of the audit log", show="verdict"),
    Verb("trace verify", "ops.trace.verify", "compare compensation records with their spans", show="verdict"),
    Verb("trace show", "ops.trace.export", "the spans of a trace and of those it leads to, as trees", (
        Field("id", "a trace, a recovery run, an allocation, a step, …"),
    ), show="trace"),
    Verb("why", "qry.*", "one screen: state, steps, failures, undo, cases, and what settles them", (
        Field("id", "an id, a node's or account's name, or kind:id"),
    ), show="why"),
)  # fmt: skip

# Entity → the columns of its list. `list` filters by any column, `show` gives the whole row.
ENTITIES: Final[dict[str, tuple[str, ...]]] = {
    "account": ("account_id", "currency", "stripe_customer_id", "created_us"),
    "node": ("node_id", "state", "dirty", "reserved_by", "allocated_to", "epoch", "quarantine_reasons", "labels"),
    "allocation": (
        "allocation_id", "state", "account_id", "node_id", "failure_code", "cleanup_pending", "requested_us",
    ),
    "attachment": (
        "attachment_id", "state", "allocation_id", "namespace_id", "node_id", "mode", "mount_path", "reason",
    ),
    "namespace": (
        "namespace_id", "account_id", "provider_id", "state", "quota_bytes", "used_bytes", "quota_flag", "drift",
    ),
    "provider_grant": ("grant_id", "namespace_id", "node_id", "provider_id", "mode", "state"),
    "meter": ("meter_id", "allocation_id", "state", "rate_uminor_per_hour", "started_us", "stopped_us", "stop_cause"),
    "ledger_entry": ("entry_id", "account_id", "entry_type", "amount_minor", "currency", "rule_id", "created_us"),
    "payment": ("payment_id", "account_id", "state", "amount_minor", "currency", "since_us", "waiting"),
    "stripe_event": ("event_id", "type", "state", "payment_id", "account_id", "received_us"),
    "debt": ("debt_id", "node_id", "kind", "target_ref", "allocation_id", "attempts", "since_us"),
    "notification": ("notification_id", "kind", "entity", "state", "attempts", "created_us", "sent_us"),
    "outbox": ("outbox_id", "entity", "subject", "state", "attempts", "created_us", "published_us"),
    "step": ("step_id", "entity", "name", "attempt", "state", "started_us", "ended_us"),
    "failure": ("failure_id", "timestamp", "failure_type", "severity", "code", "component", "ref", "message"),
    "recovery_run": ("recovery_id", "matrix_row", "entity", "final_outcome", "started_at", "ended_at"),
    "recovery_action": ("recovery_trace_id", "sequence", "action_type", "target_ref", "outcome", "duration_ms"),
    "compensation": (
        "recovery_trace_id", "sequence", "compensation_type", "compensated_action_type", "target_ref", "outcome",
    ),
    "audit_log": ("seq", "at_us", "actor", "action", "target_ref", "from_state", "to_state", "reason"),
    "ops_case": ("case_id", "kind", "target_ref", "state", "opened_us", "resolved_us"),
}  # fmt: skip

# Columns that are no text, for filters; `_us`, `_ms`, `_minor` and `_per_hour` go without saying.
INTEGERS: Final = frozenset(("attempt", "attempts", "cleanup_attempts", "epoch", "flap_count", "seq", "sequence",
                             "version", "propagation_hop"))  # fmt: skip
BOOLEANS: Final = frozenset(("dirty", "cleanup_pending"))

_STATE = Field("state", "where it keeps what it must not forget", "--state", "path")
_LOCAL_STATE = Field("state_dir", "the state directory of the local runtime", "--state-dir", "path")
_CONFIG = Field("config", "the configuration file", "--config", "path")
_POLICY = Field("policy", "the policy file; default: that of the configuration, else the built-in one", "--policy",
                "path")  # fmt: skip
_TIMING = Field("config", "the configuration file whose profile and [timing] it is", "--config", "path")
_JSON = Field("json", "what it came to as JSON", "--json", "flag")
LOCAL: Final = (
    LocalVerb("run", "the runtime process", (
        _CONFIG,
        Field("accept_new_ssh_key", "for one start: the nodes know this runtime's key instead of the one before",
              "--accept-new-ssh-key", "flag"),
    )),
    LocalVerb("init", "write a commented configuration, users of NATS and an operator's token", (
        Field("folder", "where; what is there is not overwritten", "--folder", "path"),
        Field("nodes", "names of nodes whose agents get a user of NATS, with commas", "--nodes"),
        Field("providers", "the same of storage providers", "--providers"),
        Field("operator", "the operator's name", "--operator", default="admin"),
    )),
    LocalVerb("check", "hold a configuration to the servers that it names; nothing is written", (_CONFIG,)),
    LocalVerb("upgrade", "what a start of this release would change, and whether it may", (
        Field("check", "only say it; a start does it", "--check", "flag", required=True), _CONFIG,
    )),
    LocalVerb("demo", "start everything embedded, rent, break, repair, tell", (
        Field("row", "only this row of the matrix, such as R02", "--row"),
        Field("slow", "pause between the lines", "--slow", "flag"),
        Field("keep", "leave it running", "--keep", "flag"),
        Field("state_dir", "where it keeps what it must not forget; default: a new one, gone at the end", "--state-dir",
              "path"),
        Field("nodes", "how many machines", "--nodes", "int"),
    )),
    LocalVerb("agent", "the node agent: heartbeats and tasks", (
        Field("node", "the node's name", "--node", required=True),
        Field("nats", "where NATS is; more than one with commas", "--nats"),
        _STATE, Field("interval_ms", "between two heartbeats", "--interval-ms", "int", default=5000),
        Field("mounts", "real, or plain: links below the state, without root", "--mounts", default="real"),
    )),
    LocalVerb("provider nfs", "a storage provider: serves the directories below --root to nodes", (
        Field("root", "the directory of the namespaces; an operator makes one in it for each", "--root", "path",
              required=True),
        Field("provider", "the provider's name", "--provider", required=True),
        Field("nats", "where NATS is; more than one with commas", "--nats"),
        _STATE,
        Field("server", "the name or address by which nodes mount from this host; not with --bind", "--server"),
        Field("bind", "for one machine: nodes mount the directory itself, nothing is exported", "--bind", "flag"),
        Field("exportfs", "the program that keeps the export table", "--exportfs", default="exportfs"),
        Field("export_options", "of every export, beside ro or rw", "--export-options",
              default="sync,no_subtree_check,root_squash"),
        Field("mount_options", "what nodes add when they mount", "--mount-options", default=""),
        Field("quota", "a program that prints bytes used and the limit of a namespace", "--quota"),
        Field("mount_prefixes", "where nodes may mount, with commas; any path if left out", "--mount-prefixes"),
        Field("multi_attach", "several nodes may mount one namespace read-write", "--multi-attach", "flag"),
    )),
    LocalVerb("fleet", "simulated machines with real agents", (
        Field("nodes", "how many", "--nodes", "int", default=20),
        Field("nats", "where NATS is", "--nats", required=True),
        Field("client_key_line", "the runtime's public key", "--client-key-line", required=True),
        Field("state", "what the machines keep", "--state", "path", required=True),
        Field("interval_ms", "between two heartbeats", "--interval-ms", "int", default=5000),
        Field("sites", "values of the label site", "--sites", "int", default=2),
    )),
    LocalVerb("restore", "mark a restored database; the runtime is stopped", (
        Field("reason", "why; it stands in the audit of every node", "--reason", required=True), _CONFIG,
    )),
    LocalVerb("archive", "export the history of closed months to files, and take it out of the database", (
        Field("before", "up to this month, such as 2026-11, which stays", "--before", required=True),
        Field("to", "a folder that is not there yet; default: archives/before-MONTH in the state directory", "--to",
              "path"),
        Field("drop", "drop what was exported; else it stays in the schema amends_archived until you drop that",
              "--drop", "flag"),
        Field("unexported", "also spans that no exporter has sent yet", "--unexported", "flag"), _CONFIG, _LOCAL_STATE,
    )),
    LocalVerb("audit verify", "check the chain of the audit log, and every row against its digest", (
        Field("anchors", "a file of signed heads that the history must have passed; again for each runtime's",
              "--anchors", "paths"),
        Field("public_key", "the key to trust, as a line or a file of lines; default: the local runtime's",
              "--public-key"),
        Field("archives", "the folder of an archive; again for each, to verify archived history too", "--archives",
              "paths"), _CONFIG, _LOCAL_STATE,
    )),
    LocalVerb("trace verify", "compare compensation records with their spans", (
        Field("jaeger", "where Jaeger's JSON API is", "--jaeger"),
        Field("otlp_file", "a file of spans", "--otlp-file", "path"), _CONFIG, _LOCAL_STATE,
    )),
    LocalVerb("completion", "a script by which a shell completes verbs and options", (
        Field("shell", "bash, zsh or fish"),
    )),
    LocalVerb("simulate", "a run of the whole runtime in a simulated world, the same again for the same seed", (
        Field("seed", "decides everything that is chance", "--seed", "int", default=1),
        Field("hours", "of simulated time", "--hours", default="1"),
        Field("nodes", "how many machines", "--nodes", "int", default=10), _POLICY, _TIMING,
        Field("faults", "all, none, or kinds of faults with commas", "--faults", default="all"),
        Field("replay", "print the events of this seed, up to what does not hold", "--replay", "int"),
        Field("trace", "write all its traces into this file, for Jaeger's UI", "--trace", "path"), _JSON,
    )),
    LocalVerb("prove", "the crash sweep over your policy and timing: every story dies at every point", (
        Field("row", "only this row of the matrix, such as R02, each point named", may_lack=True),
        _POLICY, _TIMING, _JSON,
    )),
)  # fmt: skip


def command_verbs(requests: Iterable[type[Request]]) -> tuple[Verb, ...]:
    """The verbs of commands, as their requests declare them."""
    return tuple(
        Verb(command.typed, command.subject, command.help, tuple(map(_field, fields_of(request))), changes=True)
        for request in requests
        if (command := request.command) is not None
    )


def _field(field: RequestField) -> Field:
    asked = field.asked
    default = None if field.optional else asked.default
    required = bool(asked.option) and not field.optional and default is None
    return Field(field.name, asked.help, asked.option, field.kind, required, default)


def entity_verbs() -> tuple[Verb, ...]:
    """`list` and `show` of every entity."""
    verbs = []
    for entity, columns in ENTITIES.items():
        words = entity.replace("_", "-")
        verbs.append(Verb(f"{words} list", f"qry.{entity}.list", f"rows of {words}", (), columns, "rows"))
        show: Literal["rental", "record"] = "rental" if entity == "allocation" else "record"
        verbs.append(Verb(f"{words} show", f"qry.{entity}.get", f"one {words}", (Field("id", "its id"),), show=show))
    return tuple(verbs)


def all_verbs(requests: Iterable[type[Request]]) -> tuple[Verb, ...]:
    """What can be asked of a runtime that takes these commands."""
    return (*command_verbs(requests), *QUESTIONS, *entity_verbs())
