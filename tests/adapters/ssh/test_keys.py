"""Customers' and nodes' public keys: what is taken, and that nothing else is."""

import base64
import string
from collections.abc import Callable

import asyncssh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.ssh.keys import KEY_TYPES, MAX_KEY_BYTES, KeyRefused, canonical_host_key, canonical_public_key

Reader = Callable[[str], tuple[str, str]]
READERS = [canonical_public_key, canonical_host_key]


def line(kind: str) -> str:
    return asyncssh.generate_private_key(kind).export_public_key().decode().strip()


CURVE = "ecdsa-sha2-nistp256"
SECURITY_KEY = "sk-ssh-ed25519@openssh.com"
GOOD = line("ssh-ed25519")
BLOB = GOOD.split(" ")[1]


def packed(*fields: bytes) -> str:
    return base64.b64encode(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).decode()


def rsa(bits: int, *, name: str = "ssh-rsa", exponent: bytes = b"\1\0\1") -> str:
    """Pack an rsa key of so many bits; no reader can tell that its modulus is no product of two primes."""
    modulus = b"\0" + ((1 << (bits - 1)) + 1).to_bytes(bits // 8, "big")
    return f"{name} {packed(b'ssh-rsa', exponent, modulus)}"


def certificate() -> str:
    key, authority = (
        asyncssh.generate_private_key("ssh-ed25519"),
        asyncssh.generate_private_key("ssh-ed25519"),
    )
    made = authority.generate_user_certificate(key.convert_to_public(), "id", principals=["root"])
    return made.export_certificate().decode().strip()


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"]
)
def test_a_good_key_comes_back_as_type_and_base64_with_its_fingerprint(read: Reader, kind: str) -> None:
    text = rsa(3072) if kind == "ssh-rsa" else line(kind)
    for given_text in (text, f'{text} somebody\'s laptop, "quoted"', f"  {text}  "):
        canonical, fingerprint = read(given_text)
        assert canonical == text
        assert fingerprint == asyncssh.import_public_key(text).get_fingerprint("sha256")
        assert read(canonical) == (canonical, fingerprint)


HOSTILE = {
    "nothing": "",
    "blank": "   ",
    "two lines": f"{GOOD}\n{GOOD}",
    "a trailing newline": f"{GOOD}\n",
    "a leading newline": f"\n{GOOD}",
    "a carriage return": f"{GOOD}\r",
    "a NUL": f"{GOOD}\0",
    "a NUL in the comment": f"{GOOD} a\0b",
    "a tab": GOOD.replace(" ", "\t"),
    "a vertical tab": f"{GOOD} \x0b",
    "an escape sequence": f"{GOOD} \x1b[2J",
    "DEL": f"{GOOD} \x7f",
    "NEL": f"{GOOD}\x85command",
    "a line separator": f"{GOOD}\u2028{GOOD}",
    "a no-break space": GOOD.replace(" ", "\u00a0"),
    "a homoglyph type": GOOD.replace("ssh", "\u0455sh"),
    "a full-width blob": f"ssh-ed25519 \uff21{BLOB[1:]}",
    "right to left": f"{GOOD} \u202ereversed",
    "a lone surrogate": f"{GOOD} \ud800",
    "an option": f"no-pty {GOOD}",
    "a command": f'command="sh -i" {GOOD}',
    "a marker": f"@cert-authority * {GOOD}",
    "a host name": f"node1 {GOOD}",
    "only a type": "ssh-ed25519",
    "only a blob": BLOB,
    "garbage base64": "ssh-ed25519 AAAA!!!!",
    "base64 of garbage": f"ssh-ed25519 {base64.b64encode(b'garbage').decode()}",
    "cut base64": f"ssh-ed25519 {BLOB[:-3]}",
    "something after the key": f"ssh-ed25519 {base64.b64encode(base64.b64decode(BLOB) + b'x').decode()}",
    "an empty key": f"ssh-ed25519 {packed(b'ssh-ed25519', b'')}",
    "another type inside": f"ssh-rsa {BLOB}",
    "another type inside an ed25519 line": f"ssh-ed25519 {line('ecdsa-sha2-nistp256').split(' ')[1]}",
    "a point off the curve": f"{CURVE} {packed(CURVE.encode(), b'nistp256', bytes([4]) + b'1' * 64)}",
    "an upper-case type": GOOD.replace("ssh", "SSH"),
    "rsa 1024": rsa(1024),
    "rsa 2048": rsa(2048),
    "rsa one bit short": f"ssh-rsa {packed(b'ssh-rsa', bytes([1, 0, 1]), b'A' * 384)}",
    "rsa with the exponent 1": rsa(3072, exponent=b"\1"),
    "rsa of 24 000 bits": rsa(24_000),
    "rsa by a name of its signatures": rsa(3072, name="rsa-sha2-256"),
    "dsa": f"ssh-dss {packed(b'ssh-dss', b'A' * 128, b'A' * 20, b'A' * 128, b'A' * 128)}",
    "a certificate": certificate(),
    "a security key": f"{SECURITY_KEY} {packed(SECURITY_KEY.encode(), b'k' * 32, b'ssh:')}",
    "ed448": line("ssh-ed448"),
    "too long": GOOD + " " + "c" * MAX_KEY_BYTES,
    "a private key": asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode(),
    "PEM": asyncssh.generate_private_key("ssh-ed25519").export_public_key("pkcs8-pem").decode(),
}


# A host key is pinned, not trusted: it may stand in a file's last line, and be an rsa key of 2048 bits.
HOSTS_MAY = frozenset(("a trailing newline", "rsa 2048", "rsa one bit short"))


@pytest.mark.parametrize("name", sorted(HOSTS_MAY))
def test_a_host_key_may_be_what_a_customer_s_may_not(name: str) -> None:
    kind, _, blob = HOSTILE[name].strip().partition(" ")
    assert canonical_host_key(HOSTILE[name])[0] == f"{kind} {blob}"


REFUSED = [(canonical_public_key, name) for name in HOSTILE]
REFUSED += [(canonical_host_key, name) for name in HOSTILE if name not in HOSTS_MAY]


@pytest.mark.parametrize(("read", "name"), REFUSED)
def test_anything_else_is_refused_without_repeating_it(read: Reader, name: str) -> None:
    text = HOSTILE[name]
    with pytest.raises(KeyRefused) as refused:
        read(text)
    assert isinstance(refused.value, ValueError)
    assert refused.value.reason == str(refused.value)
    assert refused.value.reason.isprintable()
    assert len(refused.value.reason) < 200


def judge(text: str) -> None:
    """Whatever comes in is refused, or comes out as one clean line of a known type that reads the same."""
    try:
        canonical, fingerprint = canonical_public_key(text)
    except KeyRefused:
        return
    kind, blob = canonical.split(" ")
    assert kind in KEY_TYPES
    assert set(blob) <= set(string.ascii_letters + string.digits + "+/=")
    assert canonical_public_key(canonical) == (canonical, fingerprint)


@settings(deadline=None)
@given(st.text())
def test_no_text_slips_through(text: str) -> None:
    judge(text)


@settings(deadline=None)
@given(st.integers(0, len(GOOD)), st.text(max_size=3))
def test_no_text_put_into_a_good_key_slips_through(place: int, text: str) -> None:
    judge(GOOD[:place] + text + GOOD[place:])


@settings(deadline=None)
@given(st.sampled_from(sorted(KEY_TYPES)), st.lists(st.binary(max_size=600), max_size=4), st.binary(max_size=8))
def test_no_blob_slips_through_or_breaks_the_reader(kind: str, fields: list[bytes], rest: bytes) -> None:
    blob = base64.b64decode(packed(kind.encode(), *fields)) + rest
    judge(f"{kind} {base64.b64encode(blob).decode()}")
