"""What a hostile sender puts into a field, by the kind of the field; and one good body for every command."""

from typing import Any

import asyncssh

from tests.acceptance.machine import CUSTOMER_KEY

NO_STRING: list[Any] = [5, -1, 1.5, True, [], {}, ["a"], {"a": "b"}]
CONTROL = ["a\u0000b", "a\u0007b", "a\u001b[2Jb", "a\u007fb"]
TEXTS = [
    "", "A", "-a", "a" * 64, "a b", "a_b", "a\n", "\na", "../../etc/passwd", "ä", "𝕬", "'; DROP TABLE nodes; --",
    "$(reboot)", "`id`", "a;b", "a|b", "a/b", "a.b", "*", ">", "a.>", "%00", "a" * 20_000, *CONTROL,
]  # fmt: skip
NO_NUMBER: list[Any] = ["1", "", 1.5, 1.0, 1e30, True, None, [], {}, -1, -(2**63), 2**63, 2**64, 10**40]

HOST_KEY = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
PRIVATE_KEY = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
SMALL_RSA = asyncssh.generate_private_key("ssh-rsa", key_size=2048).export_public_key().decode().strip()
TINY_RSA = asyncssh.generate_private_key("ssh-rsa", key_size=1024).export_public_key().decode().strip()
BODY_OF_KEY = CUSTOMER_KEY.split(" ")[1]
KEYS = [
    "", " ", "a", "ssh-ed25519", "ssh-ed25519 ", "ssh-ed25519 AAAA", f"ssh-rsa {BODY_OF_KEY}", PRIVATE_KEY,
    f"{CUSTOMER_KEY}\n{CUSTOMER_KEY}", f"{CUSTOMER_KEY}\nrestrict", f"{CUSTOMER_KEY}\r", f"{CUSTOMER_KEY}\u0000",
    f"\n{CUSTOMER_KEY}", f'command="reboot" {CUSTOMER_KEY}', f"cert-authority {CUSTOMER_KEY}",
    f"no-pty,permitopen=\"a:1\" {CUSTOMER_KEY}", f"ssh-dss {BODY_OF_KEY}", f"sk-ssh-ed25519@openssh.com {BODY_OF_KEY}",
    f"ssh-ed25519-cert-v01@openssh.com {BODY_OF_KEY}", f"ssh-ed25519 {BODY_OF_KEY[:-4]}", f"ssh-ed25519 {BODY_OF_KEY}é",
    f"ssh-ed25519 {BODY_OF_KEY[:20]}\t{BODY_OF_KEY[20:]}", "ssh-ed25519 " + "A" * 17_000, TINY_RSA,
]  # fmt: skip

ALLOCATION = "alloc_01kb0000000000000000000000"
ATTACHMENT = ALLOCATION.replace("alloc", "attach")
METER = ALLOCATION.replace("alloc", "meter")
HOSTILE_IDS = [
    "", "alloc_", ALLOCATION[:-1], ALLOCATION + "0", ALLOCATION.upper(), ALLOCATION.replace("alloc", "attach", 1),
    ALLOCATION[:-1] + "u", "x_01kb0000000000000000000000", ALLOCATION + "\n", "' OR 1=1 --", "a" * 20_000, *CONTROL,
]  # fmt: skip

# Kind of a field → what must be refused in it.
HOSTILE: dict[str, list[Any]] = {
    "name": [*NO_STRING, *TEXTS],
    "id": [*NO_STRING, *HOSTILE_IDS],
    "reason": [*NO_STRING, "", "a" * 1001, *CONTROL],
    "text": [*NO_STRING, "", "a" * 256, "a\nb", *CONTROL],
    "currency": [*NO_STRING, "", "us", "usdx", "USD", "u d", "usd\n", "us1", *CONTROL],
    "customer": [*NO_STRING, "", "a b", "cus-1", "a" * 256, "cus_1\n", *CONTROL],
    "stripe": [*NO_STRING, "", "a b", "pi 1", "a" * 256, "pi_1\n", "pi/1", "*", *CONTROL],
    "key": [*NO_STRING, *KEYS, SMALL_RSA],
    "host_key": [*NO_STRING, *[key for key in KEYS if not key.endswith("\n")]],
    "host": [*NO_STRING, "", "-oProxyCommand=reboot", "a b", "a;b", "$(id)", "a/b", "a@b", "a" * 254, "a\n", *CONTROL],
    "port": [*NO_NUMBER, 0, 65536],
    "user": [*NO_STRING, "", "-l", "Root", "a b", "a;b", "a" * 33, "root\n", *CONTROL],
    "rate": [*NO_NUMBER, 10**15 + 1],
    "amount": [*NO_NUMBER, 2**62 + 1],
    "mode": [*NO_STRING, "", "RW", "w", "rw ", "rw\n", "a" * 20_000, *CONTROL],
    "path": [
        *NO_STRING, "", "/", "mnt", "../etc", "/mnt/../etc", "/mnt/./a", "/mnt//a", "/mnt/", "/home", "/home/a",
        "/mnt/a\n",
        "/" + "a" * 4096, "/" + "ä" * 2048, "/mnt/a\u0000b", "/mnt/a\u0007b", "/mnt/a\u007fb",
    ],
    "attachment": [*NO_STRING, *(each for each in HOSTILE_IDS if each != ATTACHMENT), ALLOCATION],
    "time": NO_NUMBER,
    "flag": [0, 1, "true", "yes", "", None, [], {}, 1.5],
    "labels": [
        5, "a", True, [], ["a"], [["a", "b"]], {"a": 5}, {"a": None}, {"a": {}}, {"a": ["b"]}, {"": "a"}, {"a b": "c"},
        {"a" * 64: "b"}, {"-a": "b"}, {"a": "b" * 129}, {"a": "b\u0000"}, {"a": "b\n"}, {"a\n": "b"},
        {f"a{n}": "b" for n in range(33)}, {"$(id)": "b"}, {"'": "b"},
    ],
    "label": [*NO_STRING, "a" * 129, "a\n", "a\nb", *CONTROL],
    "names": [5, "a", True, {}, ["A"], [5], [None], ["a b"], ["a" * 64], ["a\n"], [["a"]], ["a"] * 10_001],
    "address": [5, "a", True, [], {}, {"host": "h"}],
}  # fmt: skip

SSH = {"host": "127.0.0.1", "port": 22, "host_key": HOST_KEY, "user": "root"}
SSH_KINDS = {"ssh": "address", "ssh.host": "host", "ssh.port": "port", "ssh.host_key": "host_key", "ssh.user": "user"}
NODE = {"node_id": "hostile", "reason": "a test"}
NODE_KINDS = {"node_id": "name", "reason": "reason"}


def _by_id(field: str, identifier: str) -> tuple[dict[str, Any], dict[str, str], set[str]]:
    return {field: identifier, "reason": "a test"}, {field: "id", "reason": "reason"}, set()


# Subject → (a good body, the kind of each field, the fields that may be left out).
COMMANDS: dict[str, tuple[dict[str, Any], dict[str, str], set[str]]] = {
    "cmd.account.create": (
        {"account_id": "hostile", "currency": "usd", "stripe_customer_id": "cus_1"},
        {"account_id": "name", "currency": "currency", "stripe_customer_id": "customer"},
        {"stripe_customer_id"},
    ),
    "cmd.node.register": (
        {"node_id": "hostile", "ssh": SSH, "labels": {"zone": "a"}},
        {"node_id": "name", "labels": "labels", **SSH_KINDS},
        {"labels", "ssh.user"},
    ),
    "cmd.allocation.request": (
        {
            "account_id": "acme", "ssh_public_key": CUSTOMER_KEY, "rate_uminor_per_hour": 1,
            "node_labels": {"zone": "a"}, "node_id": "hostile", "external_ref": "order 17",
        },
        {
            "account_id": "name", "ssh_public_key": "key", "rate_uminor_per_hour": "rate", "node_labels": "labels",
            "node_id": "name", "external_ref": "text",
        },
        {"node_labels", "node_id", "external_ref"},
    ),
    "cmd.allocation.release": ({"allocation_id": ALLOCATION}, {"allocation_id": "id"}, set()),
    "ops.cleanup.retry": _by_id("allocation_id", ALLOCATION),
    "ops.allocation.force_release": (
        {"allocation_id": ALLOCATION, "reason_code": "operator_request", "reason": "a test"},
        {"allocation_id": "id", "reason_code": "text", "reason": "reason"}, set(),
    ),
    "ops.detector.confirm": (
        {"domain": "hall 2", "node_ids": ["hostile"], "reason": "a test"},
        {"domain": "label", "node_ids": "names", "reason": "reason"}, {"domain", "node_ids"},
    ),
    "ops.node.update": (
        {**NODE, "ssh": SSH, "labels": {"zone": "a"}}, {**NODE_KINDS, "labels": "labels", **SSH_KINDS},
        {"labels", "ssh", "ssh.user"},
    ),
    "ops.node.drain": (NODE, NODE_KINDS, set()),
    "ops.node.undrain": (NODE, NODE_KINDS, set()),
    "ops.node.quarantine": (NODE, NODE_KINDS, set()),
    "ops.node.return_to_service": (
        {**NODE, "acknowledge_dirty": True}, {**NODE_KINDS, "acknowledge_dirty": "flag"}, {"acknowledge_dirty"},
    ),
    "ops.node.retire": (
        {**NODE, "acknowledge_lost": True}, {**NODE_KINDS, "acknowledge_lost": "flag"}, {"acknowledge_lost"},
    ),
    "ops.notification.redispatch": _by_id("notification_id", ALLOCATION.replace("alloc", "ntf")),
    "ops.notification.cancel": _by_id("notification_id", ALLOCATION.replace("alloc", "ntf")),
    "ops.outbox.redispatch": _by_id("outbox_id", ALLOCATION.replace("alloc", "evt")),
    "ops.outbox.skip": _by_id("outbox_id", ALLOCATION.replace("alloc", "evt")),
    "ops.case.resolve": _by_id("case_id", ALLOCATION.replace("alloc", "case")),
    "ops.case.acknowledge": _by_id("case_id", ALLOCATION.replace("alloc", "case")),
    "ops.payment.assign": (
        {"payment_id": "pi_1", "account_id": "hostile", "reason": "a test"},
        {"payment_id": "stripe", "account_id": "name", "reason": "reason"}, set(),
    ),
    "ops.account.retry_mirror": (
        {"account_id": "hostile", "reason": "a test"}, {"account_id": "name", "reason": "reason"}, set(),
    ),
    "ops.billing.post_window": (
        {"meter_id": METER, "window_start_us": 0, "amount_minor": 1, "delivery_id": "d1", "reason": "a test"},
        {"meter_id": "id", "window_start_us": "time", "amount_minor": "amount", "delivery_id": "text",
         "reason": "reason"}, set(),
    ),
    "cmd.namespace.create": (
        {"namespace_id": "hostile", "account_id": "acme", "provider_id": "nfs-1", "quota_bytes": 1},
        {"namespace_id": "name", "account_id": "name", "provider_id": "name", "quota_bytes": "amount"}, set(),
    ),
    "cmd.namespace.set_quota": (
        {"namespace_id": "hostile", "quota_bytes": 1}, {"namespace_id": "name", "quota_bytes": "amount"}, set(),
    ),
    "cmd.namespace.archive": ({"namespace_id": "hostile"}, {"namespace_id": "name"}, set()),
    "cmd.attachment.attach": (
        {"allocation_id": ALLOCATION, "namespace_id": "hostile", "mode": "rw", "mount_path": "/mnt/data"},
        {"allocation_id": "id", "namespace_id": "name", "mode": "mode", "mount_path": "path"}, set(),
    ),
    "cmd.attachment.detach": ({"attachment_id": ATTACHMENT}, {"attachment_id": "attachment"}, set()),
    "ops.attachment.retry_detach": (
        {"attachment_id": ATTACHMENT, "reason": "a test"}, {"attachment_id": "attachment", "reason": "reason"}, set(),
    ),
    "ops.attachment.acknowledge_node_lost": (
        {"attachment_id": ATTACHMENT, "reason": "a test"}, {"attachment_id": "attachment", "reason": "reason"}, set(),
    ),
    "ops.provider.reconcile": (
        {"namespace_id": "hostile", "node_id": "hostile", "reason": "a test"},
        {"namespace_id": "name", "node_id": "name", "reason": "reason"}, set(),
    ),
    "ops.streams.create": ({"reason": "a test"}, {"reason": "reason"}, set()),
    "ops.outbox.republish": ({"since_us": 0, "reason": "a test"}, {"since_us": "time", "reason": "reason"}, set()),
}  # fmt: skip

# Whole bodies that no subject takes.
RAW = [
    b"null", b"[]", b'"text"', b"1", b"true", b"{", b"}", b"{]", b"{'a': 1}", b'{"a": NaN}', b'{"a": Infinity}',
    b"\x00", b"\xff\xfe\x00", b'{"\xff": 1}', b'{"a": "\xed\xa0\x80"}', b'{"a": "\\ud800"}',
    b'{"a": "\\udc00\\ud800"}', b"[" * 30_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b"{}{}", b"{} x",
    b'{"a": 1,}', b'{"reason": "\\u0000"}', b"\xef\xbb\xbf{}", b"<xml/>", b"9" * 20_000,
]  # fmt: skip


def replaced(body: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """The body with another value in a field, which may lie in an object (`ssh.port`)."""
    outer, _, inner = field.partition(".")
    return {**body, outer: {**body[outer], inner: value} if inner else value}


def without(body: dict[str, Any], field: str) -> dict[str, Any]:
    """The body without a field."""
    outer, _, inner = field.partition(".")
    if inner:
        return {**body, outer: {name: value for name, value in body[outer].items() if name != inner}}
    return {name: value for name, value in body.items() if name != outer}
