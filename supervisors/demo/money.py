"""Money that comes twice: a debit that is replayed (R05), and a payment whose webhook is sent again and again (R06)."""

import asyncio
import secrets
import time
from typing import Any

from supervisors.demo.loss import RATE, money
from supervisors.demo.result import Result, ended, expect
from supervisors.demo.site import DemoFailed, Site
from supervisors.demo.teller import Teller

SENT = 3  # times that Stripe sends each event
PAID = 5000


async def r05(site: Site, tell: Teller) -> Result:
    """A worker is replayed: once it posts what is posted already, once another amount."""
    allocation = await site.request(rate_uminor_per_hour=RATE)
    await site.allocation_is(allocation, "active")
    meter = await site.value("SELECT meter_id FROM public_v1.meter WHERE allocation_id = $1", allocation)
    posted = """SELECT {} FROM public_v1.ledger_entry WHERE meter_id = $1 AND amount_minor > 0
                ORDER BY window_start_us LIMIT 1"""
    window = await site.until_sql("a window is posted", posted.format("window_start_us"), meter)
    amount = await site.value(posted.format("amount_minor"), meter)
    began = time.monotonic()
    about = {"meter_id": meter, "window_start_us": window, "reason": "the billing worker was replayed"}
    same = await site.ask("ops.billing.post_window", {**about, "amount_minor": amount, "delivery_id": "first"})
    refused = await site.refused(
        "ops.billing.post_window", {**about, "amount_minor": amount + 1, "delivery_id": "second"}
    )
    if not same["duplicate"] or refused != "idempotency_mismatch":
        raise DemoFailed(f"R05: the replay was answered {same}, the altered one {refused}")
    entity = f"meter:{meter}"
    undone = await expect(site, entity, [("cancel", "state_change", "success")] * 2)
    ms = (time.monotonic() - began) * 1000
    await tell.say(f"the window of {money(amount)} stands once; the altered one was refused with 409")
    case = (
        "SELECT case_id FROM public_v1.ops_case WHERE target_ref = $1 AND kind = 'billing_conflict' AND state = 'open'"
    )
    found = await site.until_sql("the conflict is a case", case, entity)
    await site.ask("ops.case.resolve", {"case_id": found, "reason": "the worker is mended"})
    await site.ask("cmd.allocation.release", {"allocation_id": allocation})
    await site.allocation_is(allocation, "released")
    return Result("R05", "a debit is posted again", undone.partition(",")[0], "recovered", ms)


async def r06(site: Site, tell: Teller) -> Result:
    """A customer pays at Stripe, whose webhook comes three times; a refund by the policy goes the other way, once."""
    stripe, account = site.stripe, f"globex-{secrets.token_hex(3)}"
    customer = (await stripe.make("customers", name=account))["id"]
    await site.ask("cmd.account.create", {"account_id": account, "currency": "usd", "stripe_customer_id": customer})
    await stripe.tell("manner", duplicates=SENT)
    began = time.monotonic()
    paid = await stripe.make("payment_intents", amount=str(PAID), currency="usd", customer=customer, confirm="true",
                             payment_method="pm_card_visa")  # fmt: skip
    await tell.say(f"{account} pays {money(PAID)} at Stripe; its webhook is delivered {SENT} times")
    entity = f"payment:{paid['id']}"
    records = "SELECT count(*) = $2 FROM public_v1.recovery_run WHERE entity = $1 AND final_outcome = 'recovered'"
    await site.until_sql("each repeat has its record", records, entity, SENT - 1)
    undone = await expect(site, entity, [("cancel", "external_call", "success")] * (SENT - 1))
    ms = (time.monotonic() - began) * 1000
    await _refunded(site, account, customer, tell)
    await _statement(site, account, tell)
    return Result("R06", f"a webhook comes {SENT} times", undone.partition(",")[0], "recovered", ms)


async def _refunded(site: Site, account: str, customer: str, tell: Teller) -> None:
    """A rental that the policy pays back: the credit is Stripe's too, once."""
    allocation = await site.request(account_id=account, rate_uminor_per_hour=RATE)
    await site.allocation_is(allocation, "active")
    await asyncio.sleep(1)
    body = {"allocation_id": allocation, "reason_code": "platform_fault", "reason": "the rack loses its cooling"}
    await site.ask("ops.allocation.force_release", body)
    await site.allocation_is(allocation, "released")
    await ended(site, f"allocation:{allocation}", "recovered", "R09")
    query = """SELECT amount_minor FROM public_v1.ledger_entry
               WHERE account_id = $1 AND entry_type = 'credit' AND meter_id IS NOT NULL"""
    wanted = [row["amount_minor"] for row in await site.rows(query, account)]

    async def there() -> bool:
        found = await site.stripe.list(f"customers/{customer}/balance_transactions")
        return [-each["amount"] for each in found] == wanted

    await site.until(there, "the credit is at Stripe")
    await tell.say(f"the policy gives {money(sum(wanted))} back, and Stripe's balance of the customer has it too")


async def _statement(site: Site, account: str, tell: Teller) -> None:
    told: dict[str, Any] = await site.ask("qry.account.statement", {"account_id": account})
    running = told["opening_minor"]
    for entry in told["entries"]:
        signed = entry["amount_minor"] * (1 if entry["entry_type"] in ("topup", "credit") else -1)
        running += signed
        key = entry["idempotency_key"].replace(entry["meter_id"] or "\n", "…")  # a meter's id would fill the line
        await tell.say(f"  {money(signed):>12}{money(running):>13}   {key}")
    if running != told["balance_minor"]:
        raise DemoFailed(f"the statement of {account} comes to {running}, its balance is {told['balance_minor']}")
