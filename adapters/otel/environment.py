"""Where spans go and what their resource is: `[otlp]` first, else the variables of the OpenTelemetry specification.

    target = export_target(endpoint, headers, os.environ)   # raises BadConfiguration
    resource = resource_of(os.environ)                      # {"service.name": …} and what else is said of the runtime

Messages name the variable and never its value: headers carry tokens. That is why the SDK's own reader is not used,
which logs what it cannot read.
"""

import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from amends.values.errors import BadConfiguration

SERVICE = "amends"
TIMEOUT_MS = 10_000
TRACES_PATH = "/v1/traces"
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of HTTP
_VALUE = re.compile(r"[\x20-\x7e\t]*")


class Target(Struct, frozen=True):
    """A receiver of OTLP over HTTP; an empty `url` is none. `timeout_ms` is of one request, None for no limit."""

    url: str = ""
    headers: dict[str, str] = {}
    gzip: bool = False
    timeout_ms: int | None = TIMEOUT_MS

    def __repr__(self) -> str:
        """Without the headers' values: they are secret."""
        return f"Target({self.url!r}, headers of {sorted(self.headers)}, gzip={self.gzip})"


def export_target(endpoint: str, headers: Mapping[str, str], environ: Mapping[str, str]) -> Target:
    """What is configured, else what the environment says; the variables of traces win over the general ones.

    Headers of the configuration are added to those of the environment and win over them, name by name.
    """
    variable, text = _of_traces(environ, "HEADERS")
    found = _pairs(variable, text)
    for name, value in headers.items():
        _check_header("[otlp].headers", name, value)
        found[name.lower()] = value
    url = traces_url(endpoint, environ)
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc):
        raise BadConfiguration("[otlp].endpoint or its variable must be an address with http:// or https://")
    return Target(url, found, _compression(environ), _timeout_ms(environ))


def traces_url(endpoint: str, environ: Mapping[str, str]) -> str:
    """Where spans go, "" for nowhere. Only OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is taken as it stands."""
    if endpoint:
        base = endpoint.rstrip("/")
        return base if base.endswith(TRACES_PATH) else base + TRACES_PATH
    exact = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip().rstrip("/")
    return exact or (base + TRACES_PATH if base else "")


def resource_of(environ: Mapping[str, str]) -> dict[str, str]:
    """The resource's attributes; what names the runtime itself (version, instance, epoch) is not the environment's."""
    name = environ.get("OTEL_SERVICE_NAME", "").strip()
    found = _pairs("OTEL_RESOURCE_ATTRIBUTES", environ.get("OTEL_RESOURCE_ATTRIBUTES", ""), lower=False)
    return {"service.name": SERVICE, **found, **({"service.name": name} if name else {})}


def _of_traces(environ: Mapping[str, str], what: str) -> tuple[str, str]:
    """The variable that counts and its value: empty ones are unset."""
    for variable in (f"OTEL_EXPORTER_OTLP_TRACES_{what}", f"OTEL_EXPORTER_OTLP_{what}"):
        if text := environ.get(variable, "").strip():
            return variable, text
    return "", ""


def _pairs(variable: str, text: str, *, lower: bool = True) -> dict[str, str]:
    """`name=value,…` with both URL-decoded, as W3C baggage without its properties has them."""
    found = {}
    for part in text.split(","):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        name, value = unquote(name.strip()), unquote(value.strip())
        if not equals or not name:
            raise BadConfiguration(f"{variable} must be name=value pairs with commas between them")
        if lower:
            _check_header(variable, name, value)
        found[name.lower() if lower else name] = value
    return found


def _check_header(where: str, name: str, value: str) -> None:
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise BadConfiguration(f"{where} holds a name or value that no HTTP header can have")


def _compression(environ: Mapping[str, str]) -> bool:
    variable, text = _of_traces(environ, "COMPRESSION")
    if text not in ("", "none", "gzip"):
        raise BadConfiguration(f"{variable} must be gzip or none, it is {text!r}")
    return text == "gzip"


def _timeout_ms(environ: Mapping[str, str]) -> int | None:
    variable, text = _of_traces(environ, "TIMEOUT")
    if not re.fullmatch(r"[0-9]{0,9}", text):
        raise BadConfiguration(f"{variable} must be a whole number of milliseconds, it is {text!r}")
    return (int(text) or None) if text else TIMEOUT_MS
