"""Inboxes on NATS: each user's answers go below a prefix of its own, which it alone may hear (api.md 10)."""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote, urlsplit

ANYBODY: Final = "_INBOX"
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")


def inbox_prefix(user: str, servers: Sequence[str] = ()) -> str:
    """`_INBOX_<user>`; the user of the first address where none is named, and `_INBOX` where there is none at all.

    A name that is no token of a subject has no prefix of its own.
    """
    name = user or (unquote(urlsplit(servers[0]).username or "") if servers else "")
    return f"{ANYBODY}_{name}" if _TOKEN.fullmatch(name) else ANYBODY
