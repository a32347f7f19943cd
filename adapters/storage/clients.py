"""Whom a line of the export table lets in, however it spells it: an address, a name, a network, a pattern."""

import asyncio
import ipaddress
import re
import socket
from contextlib import suppress
from typing import Final, Literal

Reach = Literal["", "same", "wider"]  # not that address; that one alone; that one, and perhaps others
NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?\.?")
RESOLVE_S: Final = 5.0
NOBODY: Final = (socket.EAI_NONAME, socket.EAI_NODATA)  # there is no such name; all else may mend


def address_of(text: str) -> str:
    """The one spelling of an address, with or without brackets or as IPv6 that means IPv4; empty if it is none."""
    with suppress(ValueError):
        found = ipaddress.ip_address(text.strip("[]"))
        return str(getattr(found, "ipv4_mapped", None) or found)
    return ""


async def addresses(name: str) -> set[str]:
    """All addresses that a name has now. Raises OSError where that cannot be told."""
    async with asyncio.timeout(RESOLVE_S):
        try:
            found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno in NOBODY:
                return set()
            raise
        except UnicodeError:  # no name could be so
            return set()
    return {address_of(str(each[4][0])) for each in found}


async def reach(client: str, address: str) -> Reach:
    """How the client of a line stands to an address. Raises OSError where its name cannot be looked up."""
    if one := address_of(client):
        return "same" if one == address else ""
    if "/" in client:
        return _of_network(client, address)
    if NAME.fullmatch(client) is None:  # everybody, a pattern, a netgroup: it may be anyone
        return "wider"
    found = await addresses(client)
    return "" if address not in found else "same" if len(found) == 1 else "wider"


def _of_network(client: str, address: str) -> Reach:
    try:
        network = ipaddress.ip_network(client, strict=False)
    except ValueError:
        return "wider"
    if ipaddress.ip_address(address) not in network:
        return ""
    return "same" if network.num_addresses == 1 else "wider"
