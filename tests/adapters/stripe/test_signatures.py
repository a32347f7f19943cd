"""Whose a webhook is: what Stripe's own library signs is taken, everything else is refused with a reason."""

import subprocess
import sys
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stripe import SignatureVerificationError, WebhookSignature

from adapters.simulated.stripe_events import signature
from adapters.stripe.signatures import MAX_HEADER_CHARS, MAX_ITEMS, BadSignature, verify

SECRET, PREVIOUS = "whsec_current", "whsec_previous"
BODY = '{"id": "evt_1", "name": "Zoë"}'
NOW = 1_768_478_400.0


def signed(body: str = BODY, secret: str = SECRET, at_s: float = NOW) -> str:
    """The library's header."""
    made: str = WebhookSignature.generate_signature_header(body, secret, int(at_s))
    return made


def refused(header: str, body: bytes = BODY.encode(), secrets: tuple[str, ...] = (SECRET,), **more: float) -> str:
    """The reason."""
    with pytest.raises(BadSignature) as caught:
        verify(body, header, secrets, more.get("now_s", NOW), int(more.get("tolerance_s", 300)))
    assert isinstance(caught.value, ValueError)
    return caught.value.reason


def why_not(header: str) -> str:
    """The reason of a refusal, "" for none. No other error is one."""
    try:
        verify(BODY.encode(), header, [SECRET], NOW)
    except BadSignature as refusal:
        return refusal.reason
    return ""


def library_takes(body: str, header: str, secret: str) -> bool:
    try:
        return bool(WebhookSignature.verify_header(body, header, secret))
    except SignatureVerificationError:
        return False


@given(body=st.text(), secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_what_the_library_signs_is_taken(body: str, secret: str) -> None:
    header = signed(body, secret)
    verify(body.encode(), header, [secret], NOW)
    assert "no signature was made" in refused(header, body.encode() + b" ", (secret,))


@given(body=st.binary(), secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_what_the_simulator_signs_is_taken_whatever_the_bytes(body: bytes, secret: str) -> None:
    verify(body, signature(body, secret, NOW), [secret], NOW)


def test_the_simulator_signs_as_the_library_does() -> None:
    assert signature(BODY.encode(), SECRET, NOW) == signed()


@pytest.mark.parametrize("secrets", [(SECRET, PREVIOUS), (PREVIOUS, SECRET), ("", SECRET)])
def test_one_of_the_secrets_is_enough_while_it_is_rolled(secrets: tuple[str, ...]) -> None:
    verify(BODY.encode(), signed(), secrets, NOW)


def test_one_of_several_signatures_is_enough() -> None:
    old, new = signed(secret=PREVIOUS).partition(",")[2], signed()
    for header in (f"{new},{old}", f"t={int(NOW)},{old},{new.partition(',')[2]},v0=abc", f"{new}, v1=short, , x"):
        verify(BODY.encode(), header, [SECRET], NOW)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "there is no Stripe-Signature header"),
        ("  ", "there is no Stripe-Signature header"),
        ("v1=abc", "it needs one time"),
        ("t=,v1=abc", "it needs one time"),
        ("t=1,t=2,v1=abc", "it needs one time"),
        ("t=-1,v1=abc", "it needs one time"),
        ("t=1e9,v1=abc", "it needs one time"),
        ("t=٣,v1=abc", "it is not ASCII"),
        ("t=1\ud800,v1=abc", "it is not ASCII"),
        (f"t={'9' * 13},v1=abc", "it needs one time"),
        ("t=1768478400", "no signature of scheme v1"),
        ("t=1768478400,v0=abc", "no signature of scheme v1"),
        ("t=1768478400,v1=abc", "no signature was made with a secret that is configured"),
        (f"t=1768478400{',v1=a' * MAX_ITEMS}", f"more than {MAX_ITEMS} items"),
        ("t" * (MAX_HEADER_CHARS + 1), f"more than {MAX_HEADER_CHARS} characters"),
    ],
)
def test_a_bad_header_is_refused_with_a_reason_that_a_person_understands(header: str, reason: str) -> None:
    assert reason in refused(header)


def test_a_signature_of_another_secret_or_body_is_refused() -> None:
    assert "no signature was made" in refused(signed(secret="whsec_other"))
    assert "no signature was made" in refused(signed(), BODY.encode().replace(b"1", b"2"))
    assert "no signature was made" in refused(signed(at_s=NOW - 1).replace(f"t={int(NOW) - 1}", f"t={int(NOW)}"))


@pytest.mark.parametrize("secrets", [(), ("",), ("  ",)])
def test_without_a_secret_nothing_is_verified(secrets: tuple[str, ...]) -> None:
    header = signature(BODY.encode(), "", NOW)
    assert "no webhook secret is configured" in refused(header, secrets=secrets)


@pytest.mark.parametrize("late_s", [300, -300, 0])
def test_within_the_tolerance_it_is_taken_either_way(late_s: int) -> None:
    verify(BODY.encode(), signed(), [SECRET], NOW + late_s)


def test_beyond_the_tolerance_it_is_refused_either_way() -> None:
    assert "signed 301 s ago, which is more than 300 s" in refused(signed(), now_s=NOW + 301)
    assert "signed 301 s in the future, which is more than 300 s" in refused(signed(), now_s=NOW - 301)
    assert "signed 11 s ago, which is more than 10 s" in refused(signed(), now_s=NOW + 11, tolerance_s=10)


def test_the_library_looks_at_the_past_only_which_is_why_ours_does_it_itself() -> None:
    future = signed(at_s=time.time() + 86_400)
    assert WebhookSignature.verify_header(BODY, future, SECRET, 300)


@given(header=st.text() | st.from_regex(r"(t=[0-9]{0,14}|v[01]=[0-9a-f]{0,70}|[a-z]?=?|,){0,12}", fullmatch=True))
@example(header=f"{signed()},t=1")
@example(header=f" {signed()}")
def test_whatever_the_header_it_is_refused_or_the_library_takes_it_too(header: str) -> None:
    reason = why_not(header)
    assert SECRET not in reason
    assert reason or library_takes(BODY, header.strip(), SECRET)


@given(body=st.binary())
@example(body=b"\xff\xfe")
def test_a_body_that_is_no_text_is_refused_like_any_other(body: bytes) -> None:
    assert "no signature was made" in refused(signed("another"), body)


def test_to_verify_nothing_of_stripes_library_is_loaded() -> None:
    load = "import adapters.stripe.signatures, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=True)
    assert not {"stripe", "aiohttp", "requests"} & set(done.stdout.split())
