"""Where answers may go. An answer is published with the runtime's own rights, so its subject is not the asker's choice.

Allowed are inboxes: below `_INBOX.`, below a user's own (`_INBOX_<user>.`) or, where prefixes are configured, below
these instead, and the reply subjects that servers make themselves for imports between accounts (`_R_.`) and gateways
(`_GR_.`, around an allowed one). What asks for an answer elsewhere (an event's subject, JetStream's API) is dropped and
counted, whatever endpoint it was sent to (api.md 3).
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.micro.service import Service, ServiceConfig, ServiceStats

log = logging.getLogger("amends.service")
_GATEWAY = re.compile(r"_GR_\.[^.]+\.[^.]+\.(.+)")
_BUILT_IN = ("_INBOX.", "_R_.")
_OWN = re.compile(r"_INBOX_[A-Za-z0-9_-]+\.")


class Answers:
    """Which reply subjects are answered. `dropped` hears of each other one, with the subject that was asked.

    `silent`: whether nobody is answered now, since another runtime may be doing so (api.md 3).
    """

    def __init__(
        self, prefixes: Sequence[str] = (), dropped: Callable[[str], None] = lambda subject: None, *,
        silent: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self.silent = silent
        self._own = None if prefixes else _OWN
        self._prefixes = (*_BUILT_IN, *(f"{prefix.rstrip('.')}." for prefix in prefixes))
        self._dropped = dropped
        self.dropped = 0

    def may_go_to(self, reply: str) -> bool:
        """Whether an answer may be published there."""
        gateway = _GATEWAY.fullmatch(reply)
        inbox = gateway.group(1) if gateway is not None else reply
        return inbox.startswith(self._prefixes) or (self._own is not None and self._own.match(inbox) is not None)

    def takes(self, subject: str, reply: str) -> bool:
        """Whether a request is looked at at all; one without a reply subject is: nothing is published for it."""
        if self.silent():
            return False
        if not reply or self.may_go_to(reply):
            return True
        self.dropped += 1
        self._dropped(subject)
        if self.dropped & (self.dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th …: whoever tries may try a lot
            log.warning("a request on %s wanted its answer on %r; it is dropped (%d so far)", subject, reply[:100],
                        self.dropped)  # fmt: skip
        return False


class GuardedService(Service):
    """The library's service whose own verbs (`$SRV.PING`, `INFO`, `STATS`) answer to inboxes only.

    `errors` counts error replies by subject: requests are handled in tasks of their own, where the library sees none.
    """

    def __init__(self, client: Client, config: ServiceConfig, answers: Answers, errors: Mapping[str, int]) -> None:
        super().__init__(client, config)
        self._answers, self._errors = answers, errors

    def stats(self) -> ServiceStats:
        """The library's figures, with the errors that were answered."""
        found = super().stats()
        for endpoint in found.endpoints:
            endpoint.num_errors += self._errors.get(endpoint.subject, 0)
        return found

    async def _handle_ping_request(self, msg: Msg) -> None:
        await self._guarded(msg, super()._handle_ping_request)

    async def _handle_info_request(self, msg: Msg) -> None:
        await self._guarded(msg, super()._handle_info_request)

    async def _handle_stats_request(self, msg: Msg) -> None:
        await self._guarded(msg, super()._handle_stats_request)

    async def _guarded(self, msg: Msg, answer: Callable[[Msg], Awaitable[None]]) -> None:
        if msg.reply and self._answers.takes(msg.subject, msg.reply):
            await answer(msg)
