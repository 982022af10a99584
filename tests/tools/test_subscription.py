"""Kind `subscription` against a real server: bounded polls, every ack mode, settling later."""

from __future__ import annotations

import time
from typing import Any

import pytest

from noetl_worker.errors import ToolError

from .nats_service import Session


class Reader:
    """A stream with a durable consumer, and the tool."""

    def __init__(self, session: Session) -> None:
        self.session = session

    async def fill(self, *bodies: bytes) -> None:
        self.stream, _, self.consumer = await self.session.stream(*bodies)

    async def call(self, operation: str, **config: Any) -> Any:
        common = {"source": "nats", "stream": self.stream, "consumer": self.consumer, "timeout_ms": 50}
        return (await self.session.result(operation, kind="subscription", **{**common, **config})).data

    async def state(self) -> tuple[int, int]:
        """(messages not delivered yet, messages delivered and not acked)."""
        info = await self.session.connection.jetstream().consumer_info(self.stream, self.consumer)
        return info.num_pending, info.num_ack_pending


@pytest.fixture
def reader(session: Session) -> Reader:
    return Reader(session)


@pytest.mark.parametrize("mode", ["on_success", "auto", True, "TRUE"])
async def test_a_poll_acks_what_it_returns(reader: Reader, mode: Any) -> None:
    await reader.fill(b'{"n": 1}', b"two")
    began_s = time.monotonic()
    data = await reader.call("poll", ack=mode, batch=1)
    took_ms = (time.monotonic() - began_s) * 1000
    (message,) = data.pop("messages")
    assert 0 <= data["metrics"].pop("duration_ms") <= took_ms + 1  # it is rounded
    assert data == {
        "status": "success", "source": "nats", "operation": "poll", "count": 1, "acked": True,
        "ack_mode": str(mode).lower(), "ack_ids": [], "metrics": {"bytes": 8, "redelivered": 0},
    }  # fmt: skip
    assert message.pop("metadata")["stream_seq"] == 1
    headers = {"X-Kind": "item"}
    assert message == {"id": "1", "data": {"n": 1}, "headers": headers, "attributes": headers}
    assert await reader.state() == (1, 0)


@pytest.mark.parametrize("mode", ["manual", "defer", False])
async def test_a_deferred_ack_is_given_by_a_later_call(reader: Reader, mode: Any) -> None:
    """Acked before the work, messages were lost."""
    await reader.fill(b"1", b"2", b"3")
    data = await reader.call("poll", ack=mode)
    assert (data["acked"], len(data["ack_ids"])) == (False, 3)
    assert [one["ack_id"] for one in data["messages"]] == data["ack_ids"]
    assert await reader.state() == (0, 3)
    first, second, third = data["ack_ids"]
    acked = await reader.call("ack", ack_ids=[first, first])
    assert acked.pop("metrics")["duration_ms"] >= 0
    assert acked == {
        "status": "success", "source": "nats", "operation": "ack", "requested": 1, "disposed": 1, "errors": [],
    }  # fmt: skip
    assert await reader.state() == (0, 2)
    assert (await reader.call("term", ack_ids=[second]))["disposed"] == 1
    assert await reader.state() == (0, 1)
    assert (await reader.call("nak", ack_ids=[third]))["operation"] == "nack"
    again = await reader.call("poll")
    assert (again["count"], again["metrics"]["redelivered"]) == (1, 1)
    assert again["messages"][0]["metadata"]["delivered"] == 2


async def test_a_delayed_nack_is_not_delivered_at_once(reader: Reader) -> None:
    await reader.fill(b"1")
    ack_ids = (await reader.call("poll", ack="defer"))["ack_ids"]
    await reader.call("nack", ack_ids=ack_ids, nack_delay_ms=300)
    assert (await reader.call("poll"))["count"] == 0
    assert (await reader.call("poll", timeout_ms=5000, batch=1))["count"] == 1


async def test_without_ack_the_messages_just_stay(reader: Reader) -> None:
    await reader.fill(b"1")
    data = await reader.call("poll", ack="none")
    assert (data["ack_ids"], "ack_id" in data["messages"][0]) == ([], False)
    assert await reader.state() == (0, 1)


async def test_what_the_server_does_not_take_is_told_one_by_one(reader: Reader) -> None:
    await reader.fill(b"1")
    (good,) = (await reader.call("poll", ack="defer"))["ack_ids"]
    other = good.replace(reader.stream, "NONE")
    data = await reader.call("ack", ack_ids=[other, good])
    assert (data["status"], data["requested"], data["disposed"]) == ("partial", 2, 1)
    assert data["errors"] == [{"ack_id": other, "error": "no such stream or consumer"}]


async def test_a_consumer_that_is_not_there_is_told(reader: Reader) -> None:
    await reader.fill()
    with pytest.raises(ToolError) as caught:
        await reader.call("poll", consumer="other")
    assert (str(caught.value), caught.value.kind) == (
        f"poll failed: consumer 'other' of stream {reader.stream!r} does not answer: create it before this step",
        "not_found",
    )
