"""The part of nats-py's client that a parser of its protocol calls."""


class Driver:
    """What a parser calls of its client."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.pings = 0

    async def _process_ping(self) -> None:
        self.pings += 1

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self.messages.append((subject, data))
