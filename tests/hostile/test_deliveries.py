"""What comes as Stripe's: only what one of our secrets has signed, lately; of that every event is read or refused."""

import hmac
from typing import Any, Final

from hypothesis import strategies as st

from actors.payment.reading import READERS, read_event
from adapters.stripe.signatures import MAX_HEADER_CHARS, MAX_ITEMS, BadSignature, verify
from amends.values.errors import Rejected
from supervisors.simulation.events import dispute, event, intent, refund, session
from tests.hostile.values import RAW, changed, given, sent, tried, words

NOW_S: Final = 1_768_478_400.0
SECRETS: Final = ("whsec_new", "whsec_old")
BODIES: Final = (
    intent("evt_1", "pi_1", 5000, account="acme", customer="cus_1"), session("evt_1", "pi_1", 5, account="a"),
    refund("evt_1", "pi_1", "re_1", 5), dispute("evt_1", "pi_1", 900, "created"),
    dispute("evt_1", "pi_1", 900, "funds_withdrawn"), dispute("evt_1", "pi_1", 900, "funds_reinstated"),
    *(event("evt_1", kind, {"id": "x_1"}) for kind in sorted(READERS)),
)  # fmt: skip
events = st.sampled_from(BODIES).flatmap(lambda body: sent(changed(body)))


@given(events)
def test_a_changed_event_of_stripes_is_read_or_refused_by_its_field(body: bytes) -> None:
    said, error = tried(Rejected, read_event, body, int(NOW_S * 1e6))
    if error is not None:
        assert error.code == "invalid_request"
        assert "no event of Stripe's" in str(error) or "`$" in str(error)
        return
    assert 0 <= said.amount_minor <= 2**53
    assert said.event_id
    assert said.what == "ignored" or (said.payment_id and said.amount_minor)


def signed(body: bytes, at_s: int, secret: str) -> str:
    """The signature of that secret, in hexadecimal."""
    return hmac.new(secret.encode(), b"%d." % at_s + body, "sha256").hexdigest()


payloads = st.sampled_from(RAW[:12]) | st.binary(max_size=40)
times = st.integers(-700, 700).map(lambda ago: int(NOW_S) - ago)
known = st.sampled_from((*SECRETS, "whsec_theirs"))
junk = st.lists(st.sampled_from(("v0=a", "v1=a", "tt", "=", "v1=", "x=y", " ", "v1=" + "f" * 64)), max_size=3)


@given(payloads, times, known, junk, junk, st.sampled_from((b"", b" ", b"x")))
def test_what_is_signed_is_taken_in_its_time_and_nothing_else(
    body: bytes, at_s: int, secret: str, before: list[str], behind: list[str], more: bytes
) -> None:
    header = ",".join([*before, f"t={at_s}", f"v1={signed(body, at_s, secret)}", *behind])
    _, error = tried(BadSignature, verify, body + more, header, SECRETS, NOW_S)
    good = secret in SECRETS and not more and abs(NOW_S - at_s) <= 300
    assert (error is None) == good, header


ITEMS: Final = ("t=1768478400", "t=", "t=x", "t=-1", "t=" + "9" * 13, "v1=" + "a" * 64, "v1=é", ",")
headers = (
    words | st.lists(st.sampled_from(ITEMS), max_size=40).map(",".join) | st.just("t=1," * MAX_ITEMS)
    | st.just("v1=" + "a" * MAX_HEADER_CHARS)
)  # fmt: skip


@given(payloads, headers, st.lists(st.sampled_from((*SECRETS, "", " ")) | words, max_size=3))
def test_no_header_that_nobody_signed_comes_by(body: bytes, header: str, secrets: list[Any]) -> None:
    secrets = [secret.encode(errors="replace").decode() for secret in secrets]
    _, error = tried(BadSignature, verify, body, header, secrets, NOW_S)
    assert error is not None
    assert not any(secret in str(error) for secret in SECRETS)
