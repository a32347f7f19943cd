"""A loopback port that a server finds again after a restart.

Out of its ephemeral range the kernel serves outgoing connections and everybody who binds "any port". A port of that
range can be somebody else's as soon as its server is down for a moment, so ours lie below it; and who has chosen one
holds its number of UDP, so that nobody else who chooses here takes it meanwhile.
"""

import os
import random
import socket
from collections import deque
from pathlib import Path

HOST = "127.0.0.1"
LOWEST, HIGHEST = 20_000, 32_767
ENOUGH = 1_000
TRIES = 200
HELD = 64  # of the ports that a process has chosen, the last
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")

_chance = random.SystemRandom()
_held: deque[int] = deque()  # descriptors


def free_port() -> int:
    """A port outside the ephemeral range on which nobody listens, held. Raises OSError when none is found."""
    ports = stable_range()
    for _ in range(TRIES):
        port = _chance.choice(ports)
        if hold(port) and is_free(port):
            return port
    raise OSError(f"no free port on {HOST} between {ports.start} and {ports.stop - 1} in {TRIES} tries")


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except (OSError, OverflowError):
        return False
    return True


def hold(port: int) -> bool:
    """Let nobody else choose the port while this process lives; whether nobody does by now."""
    with socket.socket(type=socket.SOCK_DGRAM) as claim:
        try:
            claim.bind((HOST, port))
        except (OSError, OverflowError):
            return False
        _held.append(claim.detach())
    if len(_held) > HELD:
        os.close(_held.popleft())
    return True


def stable_range() -> range:
    """The ports to choose from; where the ephemeral range leaves too few, the usual ones all the same."""
    try:
        lowest_ephemeral = int(EPHEMERAL.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        lowest_ephemeral = HIGHEST + 1
    below = range(LOWEST, min(HIGHEST + 1, lowest_ephemeral))
    return below if len(below) >= ENOUGH else range(LOWEST, HIGHEST + 1)
