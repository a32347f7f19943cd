"""The desk that the console stands on: the runtime's own API, asked in this process in the operator's name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from adapters.cli import why
from adapters.cli.arguments import Usage, microseconds
from adapters.cli.client import Api
from adapters.cli.client import Refused as ClientRefused
from adapters.cli.verbs import Field, Verb, all_verbs
from adapters.http.console.ports import Form, Input, Operator
from amends.domain.domain import requests_of
from amends.kernel import Kernel
from amends.runtime.identity import Headers, Identity
from amends.runtime.requests import Endpoint, Reply, Requests, decode
from amends.values.errors import Rejected, Unavailable
from amends.values.metrics import Metric
from supervisors.api.counts import Counts
from supervisors.api.metrics import Metrics
from supervisors.api.rates import Rates
from supervisors.api.readiness import Readiness

Authenticate = Callable[[Headers, str], Identity]


class Refused(ClientRefused, Rejected):
    """What the runtime says no to, as a client and as the console know it."""

    def __init__(self, error: Rejected) -> None:
        Rejected.__init__(self, error.code, error.message, **error.details)
        self.advice = ""


class InProcess(Api):
    """The API without a bus: the same checks, the same audit, the same replies."""

    def __init__(
        self, requests: Requests, endpoints: Mapping[str, Endpoint], token: str, silent: Callable[[], bool]
    ) -> None:
        self._requests, self._endpoints, self._token, self._silent = requests, endpoints, token, silent

    async def _request(self, subject: str, data: dict[str, Any], headers: dict[str, str], key: str) -> dict[str, Any]:
        endpoint = self._endpoints.get(subject)
        if endpoint is None:
            raise Refused(Rejected("not_found", f"nobody answers {subject}"))
        headers = {**headers, "Authorization": f"Bearer {self._token}"}
        try:
            body = msgspec.json.encode(data)
        except (msgspec.MsgspecError, UnicodeError, TypeError, ValueError) as error:
            raise Rejected("invalid_request", f"this cannot be sent: {error}") from error
        entry = self._requests.enter(endpoint, headers)
        reply = entry
        if not isinstance(entry, Reply):
            reply = await self._requests.handle(endpoint, body, headers, entry)
        assert isinstance(reply, Reply)
        if self._silent():
            raise Unavailable("another runtime may have taken over")
        if not reply.body["ok"]:  # of one that was refused before as well: that reply was kept
            said = reply.body["error"]
            raise Refused(reply.error or Rejected(said["code"], said["message"], **said["details"]))
        return reply.body


class Console(InProcess):
    """Implements `adapters.http.console.ports.Runtime`."""

    def __init__(self, desk: "Desk", token: str) -> None:
        super().__init__(desk.requests, desk.endpoints, token, desk.silent)
        self._desk = desk

    async def story(self, identifier: str) -> why.Story | None:
        """See the port."""
        try:
            return await why.tell(self, identifier, self._desk.verbs)
        except Refused:
            raise
        except ClientRefused as error:  # of an id that is not whole, the client's own word
            raise Rejected(error.code, str(error)) from error

    async def forecast(self, subject: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """See the port."""
        return await self.ask("ops.whatif.command", {"subject": subject, "data": dict(data)})

    async def settling(self, case: Mapping[str, Any]) -> Sequence[Form]:
        """See the port."""
        row = await why.target(self, case)
        return [
            _form(each.verb, _as_asked(each.known), each.line())
            if each.verb is not None
            else Form(each.subject, each.subject, "", "")
            for each in why.settling(case, row, self._desk.verbs)
        ]


class Desk:
    """Implements `adapters.http.console.ports.Desk`.

    `fleet`: every living node; `now`: problems, counts and rates; `samples`: the metrics; `turns`: how many committed.
    """

    def __init__(
        self, requests: Requests, endpoints: Iterable[Endpoint], verbs: Iterable[Verb], authenticate: Authenticate, *,
        silent: Callable[[], bool], fleet: Callable[[], Any], now: Callable[[], Mapping[str, Any]],
        samples: Callable[[], Iterable[Metric]], turns: Callable[[], int],
    ) -> None:  # fmt: skip
        self.requests, self.endpoints = requests, {endpoint.subject: endpoint for endpoint in endpoints}
        self.verbs, self._authenticate, self.silent = tuple(verbs), authenticate, silent
        self._fleet, self._now, self._samples, self._turns = fleet, now, samples, turns
        self._by_subject = {verb.subject: verb for verb in self.verbs if verb.changes}
        for subject in ("ops.case.acknowledge", "ops.case.resolve"):
            assert subject in self._by_subject, subject

    def log_in(self, token: str) -> Operator:
        """See the port."""
        identity = self._authenticate({"Authorization": f"Bearer {token}"}, "viewer")
        return Operator(identity.name, identity.role)

    def runtime(self, token: str) -> Console:
        """See the port."""
        return Console(self, token)

    def form(self, subject: str, known: Mapping[str, str]) -> Form | None:
        """See the port."""
        verb = self._by_subject.get(subject)
        return _form(verb, known, why.command_line(verb, known, "")) if verb is not None else None

    def data(self, form: Form, given: Mapping[str, str]) -> dict[str, Any]:
        """See the port."""
        data: dict[str, Any] = {}
        for field in self._by_subject[form.subject].fields:
            text = given.get(field.name, "").strip()
            if not text:
                if _is_required(field):
                    raise Rejected("invalid_request", f"{field.help}: this is needed", field=field.name)
                continue
            *path, last = field.name.split(".")
            place = data
            for part in path:
                place = place.setdefault(part, {})
            place[last] = _value(field, text)
        if (endpoint := self.endpoints.get(form.subject)) is not None:
            decode(endpoint, msgspec.json.encode(data))  # what would be refused is so before it is sent
        return data

    async def fleet(self) -> Sequence[Mapping[str, Any]]:
        """See the port."""
        found: Sequence[Mapping[str, Any]] = await self._fleet()
        return found

    def now(self) -> Mapping[str, Any]:
        """See the port."""
        return self._now()

    def figures(self) -> Sequence[tuple[str, str, float]]:
        """See the port."""
        found = []
        for name, kind, text, samples in self._samples():
            for sample in samples if kind != "histogram" else ():
                labels, value = (sample[0], sample[1]) if len(sample) == 2 else (sample[1], sample[2])
                shown = ", ".join(f"{key}={word}" for key, word in dict(labels).items())
                found.append((f"{name}{{{shown}}}" if shown else name, text, float(value)))
        return found

    @property
    def changes(self) -> int:
        """See the port."""
        return self._turns()


def desk(
    kernel: Kernel, counts: Counts, requests: Requests, table: Iterable[Endpoint], authenticate: Authenticate,
    ready: Readiness, metrics: Metrics, fleet: Callable[[], Any],
) -> Desk:  # fmt: skip
    """The desk of a runtime; `table`: what can be asked of it, `fleet`: asks for every living node."""
    rates = Rates(kernel.clock.now_us)
    kernel.engine.listeners.append(rates.follow)

    def now() -> dict[str, Any]:
        nodes = {state: count for (kind, state), count in sorted(counts.states.items()) if kind == "node" and count}
        named = {f"nodes {state}": count for state, count in nodes.items()}
        return {
            "problems": ready.checks(),
            "rates": rates.last_hour(),
            "counts": {"open cases": len(counts.cases), **named},
        }

    return Desk(
        requests, table, all_verbs(requests_of(kernel.domains).values()), authenticate,
        silent=lambda: not kernel.lease.may_answer(), fleet=fleet, now=now, samples=metrics.samples,
        turns=lambda: kernel.engine.turns,
    )  # fmt: skip


def _form(verb: Verb, known: Mapping[str, str], line: str) -> Form:
    fields = [
        Input(field.name, field.help, field.kind, _is_required(field), known.get(field.name, "") or _default(field))
        for field in verb.fields
    ]
    return Form(verb.subject, verb.words, verb.help, line, fields)


def _as_asked(known: Mapping[str, str]) -> Mapping[str, str]:
    """What is known of a case, by the names that commands have for it."""
    ssh = {f"ssh.{name}": known[name] for name in ("host", "port") if name in known}
    customer = {"stripe_customer_id": known["customer"]} if "customer" in known else {}
    return {**known, **ssh, **customer}


def _is_required(field: Field) -> bool:
    return field.required or not field.option


def _default(field: Field) -> str:
    return str(field.default) if field.default is not None and field.kind != "flag" else ""


def _value(field: Field, text: str) -> Any:
    """A field's text as the API takes it; no file is read for it."""
    try:
        if field.kind == "int":
            return int(text)
        if field.kind == "time":
            return microseconds(text)
    except (ValueError, Usage) as error:
        raise Rejected("invalid_request", f"{field.help}: {error}", field=field.name) from None
    if field.kind == "flag":  # of a box that is not ticked nothing is sent
        return text == "yes"
    if field.kind == "names":
        return [each.strip() for each in text.split(",") if each.strip()]
    if field.kind == "labels":
        pairs = [each.partition("=") for each in text.split(",") if each.strip()]
        if any(not found for _, found, _ in pairs):
            raise Rejected("invalid_request", f"{field.help}: name=value, with commas", field=field.name)
        return {name.strip(): value.strip() for name, _, value in pairs}
    return text
