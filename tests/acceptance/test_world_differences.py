"""The comparison with the world on real parts: a real agent's inventory, a real provider's grants, and the console."""

import shutil
from pathlib import Path
from typing import Any

import msgspec

from adapters.simulated.node_users import User
from adapters.simulated.stripe_book import API_KEY
from adapters.simulated.stripe_credits import create_customer, create_transaction
from adapters.simulated.stripe_server import StripeSimulator
from tests.acceptance.browser import Browser
from tests.acceptance.console import settle
from tests.acceptance.records import cases
from tests.acceptance.storage import Provider, Storage, StorageMachine
from tests.acceptance.world import World, until

CONFIG = "[timing]\nworld_every_ms = 600\nworld_grace_ms = 300\n"
STRANGER = "am-" + "7" * 26


async def test_what_is_there_and_not_wanted_is_a_case_each_which_a_person_settles(state_dir: Path) -> None:
    async with World(state_dir, CONFIG).running() as world:
        await world.account("acme")
        provider = Provider(world, "nfs-1")
        await provider.start()
        machine = await world.enlist(StorageMachine(world, "s1"))
        storage = Storage(world, provider, machine)
        await storage.begin()
        attachment = await storage.attach()
        # given a user, a mount and a grant of which nobody knows
        machine.ssh.table.users[STRANGER] = User("alloc_" + "7" * 26)
        foreign = machine.at("/mnt/theirs")
        foreign.symlink_to(provider.root)
        asked = {"grant_id": "grant_x", "namespace_id": storage.namespace, "node_id": "n9", "node_address": "127.0.0.1",
                 "mode": "ro", "runtime_epoch": 1}  # fmt: skip
        assert (await provider.service.answer("grant", msgspec.json.encode(asked)))["status"] == "ok"
        user, mount = f"node:s1/user:{STRANGER}", f"node:s1/foreign:{foreign}"
        grant = f"namespace:{storage.namespace}/grant:grant_x"

        async def states() -> dict[str, str]:
            rows = await world.rows("SELECT * FROM public_v1.ops_case")
            assert {row["kind"] for row in rows} <= {"world_difference"}
            return {row["target_ref"]: row["state"] for row in sorted(rows, key=lambda row: row["case_id"])}

        async def are(wanted: dict[str, str]) -> None:
            async def check() -> bool:
                return await states() == wanted

            await until(check, f"the cases are {wanted}")

        # then each has its case, which says what was seen
        await are({user: "open", mount: "open", grant: "open"})
        (case,) = await cases(world, grant)
        said = case["evidence"]
        assert (said["name"], said["seen"]) == ("grant_x", "at the provider, for the node n9, ro")
        async with Browser(world.endpoints["http_url"]) as anybody:
            await anybody.log_in(world.endpoints["operator_token"])
            assert "amends_world_differences 3.0" in (await anybody.get("/metrics")).text
        assert "amends node quarantine s1 --reason" in await world.amends("why", "s1")
        # when a person leaves the mount as it is, takes the node out for the user, and the grant is taken back by hand
        await settle(world, "world_difference", mount, "ops.case.resolve")
        revoked = {name: asked[name] for name in ("grant_id", "namespace_id", "node_id", "runtime_epoch")}
        assert (await provider.service.answer("revoke", msgspec.json.encode(revoked)))["status"] == "ok"
        await are({user: "open", mount: "resolved", grant: "resolved"})
        await world.release(storage.allocation)
        await world.cleaned(storage.allocation)
        await settle(world, "world_difference", user, "ops.node.quarantine")
        await world.ok("ops.node.return_to_service", {"node_id": "s1", "reason": "nobody's"})
        # then the user is gone by the way out of quarantine, and the comparison sees it
        await are({user: "resolved", mount: "resolved", grant: "resolved"})
        assert (machine.users, foreign.is_symlink(), storage.untouched()) == ([], True, True)
        assert (await storage.row(attachment["attachment_id"]))["state"] == "detached"
        await machine.stop()
        await provider.stop()
        shutil.rmtree(provider.base)


async def test_a_credit_at_stripe_that_the_ledger_has_not_sent_is_a_case_until_it_has_gone(state_dir: Path) -> None:
    stripe = StripeSimulator()
    await stripe.start()
    mirror = f'[stripe]\napi_key = "{API_KEY}"\napi_base = "{stripe.url}"\nmirror_credits = true\n'
    async with World(state_dir, CONFIG + mirror).running() as world:
        customer = create_customer(stripe.book, {}, ())["id"]
        await world.ok("cmd.account.create", {
            "account_id": "acme", "currency": "usd", "stripe_customer_id": customer})  # fmt: skip
        said = {"ledger_key": "credit:nobody", "source": "amends"}
        made = create_transaction(
            stripe.book, {"amount": "-7", "currency": "usd", "metadata": said}, (customer,)
        )  # fmt: skip

        async def opened() -> Any:
            return await cases(world, "account:acme/credit:credit:nobody")

        (case,) = await until(opened, "a case for the credit")
        assert (case["state"], case["evidence"]["seen"]) == ("open", "at Stripe: 7 usd")
        del stripe.book.of("customer_balance_transaction")[made["id"]]

        async def resolved() -> bool:
            return [each["state"] for each in await opened()] == ["resolved"]

        await until(resolved, "it is seen to be gone")
    await stripe.stop()
