"""SSH as a step runner: a step's call becomes one command on its node. Knows no actor; addresses are looked up late."""

from collections.abc import Callable
from typing import Any

from adapters.ssh.client import SshClient
from adapters.ssh.commands import NOBODY, SshCommand, SshEndpoint
from amends.ports.steps import Outcome, StepCall


class SshRunner:
    """Implements `amends.ports.StepRunner` for the steps named `ssh.<op>`.

    `endpoint` gives the node's present address (host, port, user, host_key) or None if there is no such node.
    """

    def __init__(
        self, client: SshClient, endpoint: Callable[[str], dict[str, Any] | None], *, default_user: str
    ) -> None:
        self._client, self._endpoint, self._user = client, endpoint, default_user

    async def run(self, call: StepCall) -> Outcome:
        """Run the op on its node within the call's time."""
        node_id: str = call.args["node_id"]
        where = self._endpoint(node_id)
        if where is None:
            return Outcome("failed", "ssh_connect_failed", f"there is no node {node_id}", may_have_run=False)
        address = SshEndpoint(where["host"], where["port"], where["user"] or self._user, where["host_key"])
        op: Any = call.name.removeprefix("ssh.")
        args = call.args
        command = SshCommand(
            op, args.get("user", NOBODY), args.get("allocation", NOBODY), args.get("attempt", NOBODY), call.epoch,
            args.get("key", ""),
        )  # fmt: skip
        result = await self._client.run(node_id, address, command, timeout_ms=call.timeout_ms)
        data = {} if result.exit_status is None else {"exit_status": result.exit_status}
        return Outcome(result.status, result.code, result.message, result.may_have_run, data)
