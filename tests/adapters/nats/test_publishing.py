"""What is no acknowledgement is an outage, not an exception."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.nats.publishing import JetStreamPublisher


@pytest.mark.parametrize("error", [json.JSONDecodeError("Expecting value", "", 0), TypeError("no such field")])
async def test_an_answer_that_is_no_acknowledgement_counts_as_none(error: Exception) -> None:
    async def publish(*args: Any, **options: Any) -> None:
        raise error

    client: Any = SimpleNamespace(is_connected=True, jetstream=lambda timeout: SimpleNamespace(publish=publish))
    found = await JetStreamPublisher(client).publish("s", b"{}", "evt_1", ("t", "s"))
    assert (found.kind, found.code) == ("down", "bad_ack")
