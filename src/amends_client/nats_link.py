"""The real link: nats-py. Its errors are mapped here, once."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, NoRespondersError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from amends_client.errors import NoEvents, Refused, Unreachable
from amends_client.link import Silence

T = TypeVar("T")
STREAM: Final = "AMENDS_EVT"
FETCH_S: Final = 5.0  # one wait for an event; then it is asked for again
CREATE_S: Final = 2.0
IDLE_S: Final = 60.0  # a consumer that nobody asks any more is gone after that
PAUSE_S: Final = 0.25
FIRST_TRIES: Final = 3  # until it is said that there are no events
DENIED: Final = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)
TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")


def inbox_prefix_of(servers: Sequence[str], user: str) -> str:
    """`_INBOX_<user>`, as the documented permissions have it; `_INBOX` without a user."""
    name = user or unquote(urlsplit(servers[0]).username or "")
    return f"_INBOX_{name}" if TOKEN.fullmatch(name) else "_INBOX"


async def cancellable(work: Coroutine[Any, Any, T]) -> T:
    """Its result. nats-py waits with `wait_for`, which on Python 3.11 swallows a cancellation that meets an answer."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()
    return task.result()


class NatsLink:
    """A connection that reconnects for ever; made by `linked`."""

    def __init__(self) -> None:
        self.client = Client()
        self._denied: set[str] = set()  # subjects that NATS did not let this connection publish
        self._said = ""

    async def heard(self, error: Exception) -> None:
        """What NATS says beside answers: a refused publication is told to whoever waits for its answer."""
        self._said = str(error) or type(error).__name__
        if denied := DENIED.search(self._said):
            self._denied.add(denied[1].lower())

    async def request(self, subject: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> bytes:
        """See `Link`."""
        self._said = ""
        try:
            asked = self.client.request(subject, body, timeout=timeout_s, headers=dict(headers) or None)
            return (await cancellable(asked)).data
        except MaxPayloadError as error:
            raise Refused("invalid_request", 400, f"{len(body)} bytes are more than NATS takes", {}) from error
        except NoRespondersError:
            raise Silence("no runtime answers; start one, or wait for a take-over") from None
        except TimeoutError:
            self._refused(subject)
            said = f"; NATS says: {self._said}" if self._said else ""
            raise Silence(f"no answer within {timeout_s:.3g} s{said}") from None
        except (NatsError, OSError) as error:
            raise Silence(f"the connection to NATS was lost: {error}") from error

    def _refused(self, subject: str) -> None:
        if subject.lower() in self._denied:
            self._denied.discard(subject.lower())
            raise Refused("forbidden", 403, f"NATS does not let this user publish {subject}", {"subject": subject})

    async def follow(self, subject: str, *, latest: bool = False) -> AsyncGenerator[bytes]:
        """See `Link`. A pull consumer; where a message is missing, a new one begins after the last that was seen."""
        self._may_follow()
        first = DeliverPolicy.LAST_PER_SUBJECT if latest else DeliverPolicy.ALL
        after = failed = 0
        while True:
            try:
                async with self._consumer(subject, first, after) as consumer:
                    failed = 0
                    expected = 1
                    while True:
                        try:
                            (message,) = await cancellable(consumer.fetch(1, timeout=FETCH_S))
                        except TimeoutError:  # nothing has happened
                            self._may_follow()
                            continue
                        number = message.metadata.sequence
                        if number.consumer != expected:
                            break
                        expected, after = expected + 1, number.stream
                        yield message.data
            except NotFoundError as error:
                if not after:
                    raise NoEvents(f"there is no stream {STREAM}: {error}") from error
            except (NatsError, OSError) as error:
                self._may_follow()
                failed += 1
                if not after and failed >= FIRST_TRIES:
                    raise NoEvents(f"{STREAM} cannot be read: {error}") from error
            await asyncio.sleep(PAUSE_S)

    def _may_follow(self) -> None:
        for one in self._denied:  # of this connection: what it may not do it may not do later either
            if one.startswith(("$js.api.consumer.create.", "$js.api.consumer.msg.next.")):
                raise NoEvents(f"NATS does not let this user publish {one}")

    async def connected_again(self) -> None:
        """The user's rights may be others now."""
        self._denied.clear()

    @asynccontextmanager
    async def _consumer(
        self, subject: str, first: DeliverPolicy, after: int
    ) -> AsyncIterator[JetStreamContext.PullSubscription]:
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE if after else first,
            opt_start_seq=after + 1 if after else None, ack_policy=AckPolicy.NONE, inactive_threshold=IDLE_S,
            mem_storage=True,
        )  # fmt: skip
        stream = self.client.jetstream(timeout=CREATE_S)
        consumer = await cancellable(stream.pull_subscribe(subject, stream=STREAM, config=config))
        try:
            yield consumer
        finally:
            if self.client.is_connected:  # else it is gone after IDLE_S
                with suppress(NatsError, OSError):
                    await consumer.unsubscribe()
                    await stream.delete_consumer(STREAM, str(config.name))


@asynccontextmanager
async def linked(
    servers: Sequence[str], inbox_prefix: str, within_s: float, options: Mapping[str, Any]
) -> AsyncIterator[NatsLink]:
    """A link to these servers. Raises `Unreachable`."""
    link = NatsLink()
    prefix = inbox_prefix or inbox_prefix_of(servers, options.get("user") or "")
    settings = {
        "name": "amends-client", "connect_timeout": 2, "max_reconnect_attempts": -1, "reconnect_time_wait": PAUSE_S,
        **options,
    }  # fmt: skip
    try:
        async with asyncio.timeout(within_s):
            await link.client.connect(
                list(servers), error_cb=link.heard, reconnected_cb=link.connected_again, inbox_prefix=prefix, **settings
            )
    except (NatsError, OSError, TimeoutError) as error:
        await link.client.close()
        why = str(error) or link._said or type(error).__name__  # noqa: SLF001 - its own maker
        raise Unreachable("NATS", f"{urlsplit(servers[0]).hostname or servers[0]} cannot be reached: {why}") from error
    try:
        yield link
    finally:
        link.client.options["max_reconnect_attempts"] = 1  # else one whose server is gone never lets go
        await link.client.close()
