"""What `[otlp]` and the variables of the OpenTelemetry specification say of the receiver and the resource."""

import pytest

from adapters.otel.environment import Target, export_target, resource_of
from amends.values.errors import BadConfiguration

GENERAL, TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


@pytest.mark.parametrize(
    ("configured", "environ", "url"),
    [
        ("http://here:4318", {GENERAL: "http://elsewhere:4318/"}, "http://here:4318/v1/traces"),
        ("http://here:4318/v1/traces/", {}, "http://here:4318/v1/traces"),
        ("http://here/base", {}, "http://here/base/v1/traces"),
        ("http://here", {TRACES: "http://exact/in"}, "http://here/v1/traces"),
        ("", {GENERAL: "http://elsewhere:4318/"}, "http://elsewhere:4318/v1/traces"),
        ("", {GENERAL: "http://elsewhere", TRACES: "http://exact/in/"}, "http://exact/in/"),
        ("", {GENERAL: "http://elsewhere", TRACES: ""}, "http://elsewhere/v1/traces"),
        ("", {}, ""),
    ],
)  # fmt: skip
def test_only_the_address_for_traces_is_taken_as_it_stands(configured: str, environ: dict[str, str], url: str) -> None:
    assert export_target(configured, {}, environ).url == url


def test_headers_compression_and_time_out_are_read_as_the_specification_has_them() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=general", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
    }  # fmt: skip
    general = export_target("http://h", {}, environ)
    assert (general.headers, general.gzip, general.timeout_ms) == ({"api-key": "general"}, True, 2500)
    environ |= {
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "Authorization=Bearer%20a%3Db%2Cc, x-tenant = t1 ,",
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "none", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "0",
    }  # fmt: skip
    own = export_target("http://h", {"X-Tenant": "t2"}, environ)
    assert own.headers == {"authorization": "Bearer a=b,c", "x-tenant": "t2"}
    assert (own.gzip, own.timeout_ms) == (False, None)
    assert "Bearer" not in f"{own} {own!r}"
    assert export_target("http://h", {}, {}) == Target("http://h/v1/traces", {}, gzip=False, timeout_ms=10_000)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_EXPORTER_OTLP_HEADERS": "hush-hush"}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a=hush%0Ahush"}, "OTEL_EXPORTER_OTLP_TRACES_HEADERS"),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "brotli"}, "OTEL_EXPORTER_OTLP_COMPRESSION"),
        ({"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "10s"}, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"),
        ({TRACES: "collector:4318"}, "http"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_stops_the_start_and_shows_no_secret(environ: dict[str, str], named: str) -> None:
    with pytest.raises(BadConfiguration, match=named) as raised:
        export_target("", {}, environ)
    assert "hush" not in str(raised.value)
    with pytest.raises(BadConfiguration, match="headers") as raised:
        export_target("http://h", {"authorization": "hush\nhush"}, {})
    assert "hush" not in str(raised.value)


def test_the_environment_names_the_service_and_adds_to_the_resource() -> None:
    assert resource_of({}) == {"service.name": "amends"}
    said = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,deployment.environment.name=te%20st"}
    assert resource_of(said) == {"service.name": "a", "deployment.environment.name": "te st"}
    assert resource_of({**said, "OTEL_SERVICE_NAME": "rental"})["service.name"] == "rental"
