"""A loopback port that a server finds again after a restart.

Out of its ephemeral range the kernel serves outgoing connections and everybody who binds "any port". A port of that
range can be somebody else's as soon as its server is down for a moment, so ours lie below it.
"""

import random
import socket
from pathlib import Path

HOST = "127.0.0.1"
LOWEST, HIGHEST = 20_000, 32_767
ENOUGH = 1_000
TRIES = 200
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")

_chance = random.SystemRandom()


def free_port() -> int:
    """A port outside the ephemeral range on which nobody listens. Raises OSError when none is found."""
    ports = stable_range()
    for _ in range(TRIES):
        port = _chance.choice(ports)
        if is_free(port):
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


def stable_range() -> range:
    """The ports to choose from; where the ephemeral range leaves too few, the usual ones all the same."""
    try:
        lowest_ephemeral = int(EPHEMERAL.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        lowest_ephemeral = HIGHEST + 1
    below = range(LOWEST, min(HIGHEST + 1, lowest_ephemeral))
    return below if len(below) >= ENOUGH else range(LOWEST, HIGHEST + 1)
