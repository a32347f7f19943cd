"""A small platform that rents out machines, as a client of a running Amends: one customer's morning.

    ssh-keygen -q -t ed25519 -N '' -f customer
    python -m examples.small_platform .amends customer.pub

`.amends` is the state directory of `amends run`, or the one that `./run demo --keep` prints; a node must be ready. The
customer opens an account, rents a machine, waits for it, sees how to log in, gives it back and reads the statement.
All that a platform of one's own needs besides is who its customers are.
"""

import asyncio
import json
import secrets
import sys
from pathlib import Path

import amends_client
from amends_client import Client, Ended, LedgerEntry, Refused, Rental, Unreachable

RATE = 249_000_000  # millionths of a cent per hour: 2.49 dollars
WAIT_S = 60.0


async def open_account(client: Client, name: str) -> str:
    """An account for a customer. That it is there already is no error: the program may have been run before."""
    try:
        await client.account.create(account_id=name, currency="usd")
    except Refused as refused:
        if refused.code != "already_exists":
            raise
    return name


async def rent(client: Client, account: str, ssh_key: str, order: str) -> Rental:
    """A machine for a customer, ready to log in.

    The number of the order is the key: whoever asks again for the same order, after a crash too, gets the same rental.
    """
    rental = await client.allocation.request(
        account_id=account, ssh_public_key=ssh_key, rate_uminor_per_hour=RATE, external_ref=order, key=order
    )
    print(f"order {order}: {rental.id}, {rental.row.state}")
    await rental.until("active", timeout_s=WAIT_S)
    return rental


async def give_back(client: Client, rental: Rental) -> None:
    """End a rental; from `released` on the customer is locked out, and the money of it is in the ledger."""
    ended = await client.allocation.release(allocation_id=rental.id)
    await ended.until("released", timeout_s=WAIT_S)
    print(f"{rental.id}: {ended.row.state}")


async def print_statement(client: Client, account: str) -> None:
    """What the account was charged and credited, page after page."""
    page = await client.account.statement(account_id=account)
    while True:
        for entry in page.entries:
            print(f"  {entry.entry_type or '':8} {money(entry):>12}  {entry.rule_id or ''}")
        if page.cursor is None:
            break
        page = await client.account.statement(account_id=account, cursor=page.cursor)
    print(f"balance of {account}: {page.balance_minor / 100:.2f} {page.currency}")


def money(entry: LedgerEntry) -> str:
    """An amount for people."""
    return f"{(entry.amount_minor or 0) / 100:.2f} {entry.currency}"


async def morning(url: str, token: str, ssh_key: str, customer: str) -> None:
    """All of it."""
    async with amends_client.connect(url, token=token) as client:
        account = await open_account(client, customer)
        rental = await rent(client, account, ssh_key, f"order-{secrets.token_hex(4)}")
        access = rental.row.access
        assert access is not None, "an active rental has one"
        print(f"log in: ssh -p {access.port} {access.user}@{access.host}   # {access.fingerprint}")
        await give_back(client, rental)
        await print_statement(client, account)
        async for row in client.allocation.list(account_id=account):
            print(f"{row.allocation_id} {row.state} {row.external_ref}")


def main(arguments: list[str]) -> int:
    """0 done, 1 refused or ended, 2 usage, 3 unreachable."""
    if len(arguments) not in (2, 3):
        print("usage: python -m examples.small_platform STATE_DIR PUBLIC_KEY_FILE [CUSTOMER]", file=sys.stderr)
        return 2
    state_dir, key_file, customer = Path(arguments[0]), Path(arguments[1]), (*arguments, "jane")[2]
    at = json.loads((state_dir / "endpoints.json").read_text(encoding="utf-8"))
    key = key_file.read_text(encoding="utf-8").strip()
    try:
        asyncio.run(morning(at["nats_url"], at["operator_token"], key, customer))
    except (Refused, Ended, TimeoutError) as error:
        print(f"small platform: {error}", file=sys.stderr)
        return 1
    except Unreachable as error:
        print(f"small platform: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
