"""Settings: `amends.toml` and the environment, read strictly. What is wrong stops the start.

Every key is optional; an unknown one is refused with its line. Environment: AMENDS_ + section + key, such as
AMENDS_POSTGRES_DSN, AMENDS_STATE_DIR or AMENDS_TIMING_CLEANUP_TRIES; lists and ranges are separated by commas.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec
from msgspec import Meta, Struct

from actors.fields import MAX_RATE
from amends.values.errors import BadConfiguration
from amends.values.limits import LimitValue
from supervisors.paths import text_fault
from supervisors.timing import TIMING, Profile, timing
from supervisors.toml_lines import line_at, lines_of, parsed

Role = Literal["operator", "viewer"]
OPEN: Literal["open"] = "open"  # of `callers`: whoever gets to NATS may send commands


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration; unknown keys are refused."""


class PostgresSettings(Section, frozen=True):
    """`[postgres]`; an empty `dsn` means the embedded server."""

    dsn: str = ""


class NatsSettings(Section, frozen=True):
    """`[nats]`; no servers mean the embedded one, whose users and permissions are in `users_file`, if any."""

    servers: list[str] = []
    user: str = ""
    password: str = ""
    token: str = ""
    creds_file: str = ""
    nkey_seed_file: str = ""
    tls_ca_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    auto_create_streams: Literal["startup", "never"] = "startup"
    users_file: str = ""
    inbox_prefixes: list[str] = []
    operator_user: str = ""
    operator_password: str = ""


class OtlpSettings(Section, frozen=True):
    """`[otlp]`; empty: OTEL_EXPORTER_OTLP_(TRACES_)ENDPOINT, else no export. `headers` are secret."""

    endpoint: str = ""
    headers: dict[str, str] = {}


class DetectorSettings(Section, frozen=True):
    """`[detector]`."""

    domain_label: str = "site"


class HttpSettings(Section, frozen=True):
    """`[http]`; `listen` is host:port, `jaeger_url` where Jaeger's own pages are, for the console's links."""

    listen: str = "127.0.0.1:8321"
    jaeger_url: str = ""


class LogSettings(Section, frozen=True):
    """`[log]`; `auto` is text on a terminal and JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


class SshSettings(Section, frozen=True):
    """`[ssh]`; an empty `client_key` is generated in the state directory."""

    user: str = "root"
    client_key: str = ""
    connect_timeout_ms: int = 3000
    customer_key_options: str = "restrict,pty,port-forwarding"


class AnchorSettings(Section, frozen=True):
    """`[anchors]`; empty: a key made in the state directory, and the file `anchors.jsonl` there."""

    key: str = ""
    file: str = ""


class ArchiveSettings(Section, frozen=True):
    """`[archive]`; months that ended less than `span_retention_h` hours ago are not taken out."""

    span_retention_h: Annotated[int, Meta(ge=1, le=87_600)] = 168


class StripeSettings(Section, frozen=True):
    """`[stripe]`; `webhook_secrets` the current one first; `api_base` of a simulator. Keys and secrets are secret."""

    api_key: str = ""
    api_base: str = ""
    mirror_credits: bool = False
    webhook_secrets: list[str] = []


class Caller(Section, frozen=True):
    """One of `[callers]`; `accounts` may be ["*"], `open_requests` are of each account."""

    token_sha256: str
    accounts: list[str]
    commands_per_s: Annotated[int, Meta(ge=1, le=1_000_000)] = 50
    open_requests: Annotated[int, Meta(ge=1, le=1_000_000)] = 200


class Operator(Section, frozen=True):
    """One of `[operators]`."""

    token_sha256: str
    role: Role


class Settings(Section, frozen=True):
    """All of `amends.toml`."""

    profile: Profile = "production"
    state_dir: str = "./.amends"
    policy_file: str = ""
    postgres: PostgresSettings = PostgresSettings()
    nats: NatsSettings = NatsSettings()
    otlp: OtlpSettings = OtlpSettings()
    detector: DetectorSettings = DetectorSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    ssh: SshSettings = SshSettings()
    anchors: AnchorSettings = AnchorSettings()
    archive: ArchiveSettings = ArchiveSettings()
    stripe: StripeSettings = StripeSettings()
    callers: dict[str, Caller] | Literal["open"] = {}
    prices: dict[str, int] = {}
    operators: dict[str, Operator] = {}
    timing: dict[str, int | list[int]] = {}

    @property
    def known_callers(self) -> Mapping[str, Caller]:
        """`[callers]`; empty where anybody may send commands, as `anonymous`."""
        return self.callers if isinstance(self.callers, dict) else {}

    def limits(self) -> dict[str, LimitValue]:
        """The timing table this process runs with."""
        overrides: dict[str, LimitValue] = {
            key: (value[0], value[1]) if isinstance(value, list) else value for key, value in self.timing.items()
        }
        return timing(self.profile, overrides)


# Not settings of a runtime: the command line's own, the launcher's, and a page's example.
OTHER_VARIABLES = frozenset((
    "AMENDS_TOKEN", "AMENDS_VIEWER_TOKEN", "AMENDS_PYTHON", "AMENDS_TEST_SEED",
    *(f"AMENDS_CLIENT_NATS_{name}" for name in ("USER", "PASSWORD", "TOKEN", "CREDS_FILE", "NKEY_SEED_FILE")),
))  # fmt: skip
PRICE_NAME = r"[a-z0-9][a-z0-9-]{0,62}"
FILE_ONLY = ("prices", "operators", "timing")  # tables of names; `[timing]` has variables of its own


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings of a file (none: defaults) and the environment; raises `BadConfiguration`."""
    check_variables(environ)
    text = ""
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfiguration(f"{path}: cannot be read: {error}") from None
    name = str(path) if path is not None else "the environment"
    try:
        raw = parsed(text)
    except ValueError as error:
        raise BadConfiguration(f"{name}: {error}") from None
    _from_environment(raw, environ)
    _check_prices(name, text, raw.get("prices", {}))
    _check_timing_types(name, text, raw.get("timing", {}))
    try:
        settings = msgspec.convert(raw, Settings)
    except msgspec.ValidationError as error:
        message = _named(raw, str(error))
        raise BadConfiguration(_with_line(name, text, message)) from None
    _check_timing(name, text, settings)
    _check_tokens(name, settings)
    _check_texts(name, text, settings)
    _check_users_file(name, text, settings)
    _check_stripe(name, settings)
    return settings


def variables() -> frozenset[str]:
    """Every variable of the environment that means something to us."""
    found = {*OTHER_VARIABLES, *(f"AMENDS_TIMING_{limit.upper()}" for limit in TIMING)}
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            found |= {f"AMENDS_{field.name}_{key.name}".upper() for key in msgspec.structs.fields(field.type)}
        elif field.name not in FILE_ONLY:
            found.add(f"AMENDS_{field.name.upper()}")
    return frozenset(found)


def check_variables(environ: Mapping[str, str]) -> None:
    """Raise `BadConfiguration` for a variable that means nothing: a misspelt DSN would be another database."""
    known = variables()
    for name in sorted(environ):
        if name.startswith("AMENDS_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"; is {near[0]} meant?" if near else "; docs/operations.md has them all"
            raise BadConfiguration(f"the environment has {name}, which is no setting of Amends{meant}")


def _from_environment(raw: dict[str, Any], environ: Mapping[str, str]) -> None:
    for field in msgspec.structs.fields(Settings):
        if field.name in FILE_ONLY:
            continue
        section = field.type if isinstance(field.type, type) and issubclass(field.type, Section) else None
        if section is None:
            value = environ.get(f"AMENDS_{field.name.upper()}")
            if value:
                raw[field.name] = value
            continue
        for key in msgspec.structs.fields(section):
            value = environ.get(f"AMENDS_{field.name}_{key.name}".upper())
            table = raw.setdefault(field.name, {}) if value else None
            if value and isinstance(table, dict):  # what is no table is refused with its line
                table[key.name] = _typed(key.type, value)
    for limit in TIMING:
        value = environ.get(f"AMENDS_TIMING_{limit.upper()}")
        table = raw.setdefault("timing", {}) if value else None
        if value and isinstance(table, dict):
            parts = [_typed(int, part.strip()) for part in value.split(",")]
            table[limit] = parts if len(parts) > 1 else parts[0]


def _typed(kind: Any, value: str) -> Any:
    if kind is int and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    if kind is bool and value in ("true", "false"):
        return value == "true"
    if getattr(kind, "__origin__", None) is dict:  # as OTEL_EXPORTER_OTLP_HEADERS: name=value,…, URL-decoded
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        whole = all(equals for _, equals, _ in pairs)
        return {unquote(key.strip()): unquote(text.strip()) for key, _, text in pairs} if whole else value
    if getattr(kind, "__origin__", None) is list:
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _named(raw: dict[str, Any], message: str) -> str:
    """The validator's message with the entry of a table where it says `[...]` only: the one that alone is wrong so."""
    found = re.search(r"`\$\.(\w+(?:\.\w+)*)\[\.\.\.\](.*?)`", message)
    if found is None:
        return message
    path = found[1].split(".")
    table = raw
    for part in path:
        table = table[part]
    for key, value in table.items():
        alone: Any = {key: value}
        for part in reversed(path):
            alone = {part: alone}
        try:
            msgspec.convert(alone, Settings)
        except msgspec.ValidationError as error:
            if str(error) == message:
                return message.replace(found[0], f"`$.{found[1]}.{key}{found[2]}`")
    return message


def _with_line(name: str, text: str, message: str) -> str:
    """The validator's message with the line of the key it speaks of."""
    unknown = re.search(r"unknown field `(.+?)`", message)
    where = re.search(r"at `\$\.?(.*?)`", message)
    key = unknown.group(1) if unknown else where.group(1).rpartition(".")[2] if where else ""
    place = [*re.findall(r"[^.\[\]]+", where.group(1) if where else ""), *([key] if unknown else [])]
    if number := line_at(lines_of(text), tuple(place)):
        return f"{name}, line {number}: {message}"
    for pattern in (
        rf"\s*\[?{re.escape(key)}\b",
        rf".*\b{re.escape(key)}\s*=",
    ):  # a line's own key; one of an inline table
        for number, line in enumerate(text.splitlines(), 1):
            if key and re.match(pattern, line):
                return f"{name}, line {number}: {message}"
    return f"{name}: {message}"


def _check_timing_types(name: str, text: str, table: Any) -> None:
    for key, value in table.items() if isinstance(table, dict) else ():
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, int) and not isinstance(part, bool) for part in parts):
            message = f"[timing] {key} must be whole numbers, it is {value!r} - at `$.{key}`"
            raise BadConfiguration(_with_line(name, text, message))


def _check_prices(name: str, text: str, table: Any) -> None:
    for price, rate in table.items() if isinstance(table, dict) else ():
        if not isinstance(rate, int) or isinstance(rate, bool) or not 0 <= rate <= MAX_RATE:
            message = f"[prices] {price} must be a whole number from 0 to {MAX_RATE}, it is {rate!r} - at `$.{price}`"
            raise BadConfiguration(_with_line(name, text, message))
        if not re.fullmatch(PRICE_NAME, price):
            raise BadConfiguration(f"{name}: [prices] {price!r} is no name: lower-case letters, digits, dashes")


def _check_texts(name: str, text: str, settings: Settings) -> None:
    """What would otherwise be found wrong only when something has been made already."""
    host, _, port = settings.http.listen.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        message = f"[http] listen must be host:port, it is {settings.http.listen!r} - at `$.listen`"
        raise BadConfiguration(_with_line(name, text, message))
    if not re.fullmatch(r"(https?://[!-~]+)?", settings.http.jaeger_url):
        message = f"[http] jaeger_url must begin with http:// or https://, it is {settings.http.jaeger_url!r}"
        raise BadConfiguration(_with_line(name, text, f"{message} - at `$.jaeger_url`"))
    if not re.fullmatch(r"[ -~]*", settings.ssh.customer_key_options):
        message = "[ssh] customer_key_options must be one line of printable ASCII - at `$.customer_key_options`"
        raise BadConfiguration(_with_line(name, text, message))


def _check_users_file(name: str, text: str, settings: Settings) -> None:
    found = settings.nats
    if not found.users_file:
        return
    why = ""
    if found.servers:
        why = "is for the embedded server, and servers are named: give it to those"
    elif fault := text_fault(Path(found.users_file)):
        why = f"cannot be read: {found.users_file!r}: {fault}"
    if why:
        raise BadConfiguration(_with_line(name, text, f"[nats] users_file {why} - at `$.users_file`"))


def _check_timing(name: str, text: str, settings: Settings) -> None:
    for key, value in settings.timing.items():
        if key not in TIMING:
            raise BadConfiguration(_with_line(name, text, f"Object contains unknown field `{key}` - at `$.timing`"))
        is_range = isinstance(TIMING[key][0], tuple)
        if is_range and not (isinstance(value, list) and len(value) == 2 and 0 < value[0] <= value[1]):
            raise BadConfiguration(_with_line(name, text, f"[timing] {key} is a range [first, cap] - at `$.{key}`"))
        if not is_range and not (isinstance(value, int) and value > 0):
            raise BadConfiguration(_with_line(name, text, f"[timing] {key} is a number above 0 - at `$.{key}`"))


def _check_tokens(name: str, settings: Settings) -> None:
    for table, entries in (("callers", settings.known_callers), ("operators", settings.operators)):
        for who, entry in entries.items():
            if ":" in who:
                raise BadConfiguration(f"{name}: [{table}] {who}: a name has no colon")
            if not re.fullmatch(r"[0-9a-f]{64}", entry.token_sha256):
                raise BadConfiguration(f"{name}: [{table}] {who}: token_sha256 must be 64 lower-case hex digits")


def check_serving(settings: Settings) -> None:
    """Who may send commands is written down before a runtime serves on a NATS that is not its own (api.md 10)."""
    if settings.nats.servers and not settings.callers:
        raise BadConfiguration(
            "[nats] servers are set and [callers] names nobody: anybody whom that NATS lets in could rent and release. "
            'Name who may send commands in [callers], or write callers = "open" above the first table'
        )


def _check_stripe(name: str, settings: Settings) -> None:
    stripe = settings.stripe
    if stripe.mirror_credits and not stripe.api_key:
        raise BadConfiguration(f"{name}: [stripe].mirror_credits needs [stripe].api_key")
    if any(not secret.strip() for secret in stripe.webhook_secrets):
        raise BadConfiguration(f"{name}: [stripe].webhook_secrets has an empty one; Stripe's begin with whsec_")
