"""Kind `nats` against a real server: messages, streams, bounded reads, and what is not there."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, StreamConfig

from nats_client import connected
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.errors import ToolError
from noetl_worker.testing import arun_tool, tool_context
from noetl_worker.tools.kinds.nats import messages as nats_messages
from noetl_worker.tools.kinds.nats.messages import pull
from noetl_worker.tools.kinds.nats.nats import NatsTool
from noetl_worker.tools.registry import Registry

from .nats_service import Session

# ── messages ────────────────────────────────────────────────────────────────────────────────────


async def test_js_publish_is_acked_and_told_from_a_repetition(session: Session) -> None:
    stream, subject, _ = await session.stream()
    first = await session.call("js_publish", subject=subject, data="x", headers={"Nats-Msg-Id": "m1"})
    assert first == {"status": "success", "stream": stream, "seq": 1, "duplicate": False}
    again = await session.call("js_publish", subject=subject, data="x", headers={"Nats-Msg-Id": "m1"})
    assert again["duplicate"] is True
    lost = await session.refused("js_publish", subject="no.stream.here", data="x")
    assert (str(lost), lost.kind) == ("js_publish failed: no stream takes messages on this subject", "not_found")
    other = await session.refused("js_publish", subject=subject, stream="OTHER", data="x")
    assert str(other) == "js_publish failed: expected stream does not match"


async def test_a_message_larger_than_the_server_takes_is_refused_before(session: Session) -> None:
    error = await session.refused("js_publish", subject="s", data="x" * (1024 * 1024 + 1))
    assert str(error) == (
        "nats: the data has 1048577 bytes, the server takes 1048576; "
        "put it into an object store (object_put) and publish its name"
    )


async def test_consume_returns_and_acks_what_it_returns_only(session: Session) -> None:
    stream, subject, consumer = await session.stream(b'{"n": 1}', b"two", b"\xff")
    data = await session.call("js_consume", stream=stream, consumer=consumer, batch=2)
    assert (data["count"], data["acked"], data["stream"], data["consumer"]) == (2, True, stream, consumer)
    assert data["messages"][0] == {
        "subject": subject, "stream_seq": 1, "consumer_seq": 1, "delivered": 1, "pending": 2,
        "data": {"n": 1}, "headers": {"X-Kind": "item"},
    }  # fmt: skip
    assert data["messages"][1]["data"] == "two"
    state = await session.connection.jetstream().consumer_info(stream, consumer)
    assert (state.num_ack_pending, state.num_pending, state.num_waiting) == (0, 1, 0)
    rest = await session.call("js_consume", stream=stream, consumer=consumer, timeout_ms=50)
    assert [one["data"] for one in rest["messages"]] == [{"base64": "/w==", "size": 1}]
    empty = await session.call("js_consume", stream=stream, consumer=consumer, timeout_ms=50)
    assert (empty["count"], empty["messages"], empty["acked"]) == (0, [], True)


async def test_consume_without_ack_leaves_the_messages_pending(session: Session) -> None:
    stream, _, consumer = await session.stream(b"a")
    data = await session.call("js_consume", stream=stream, consumer=consumer, ack=False, timeout_ms=50)
    assert data["acked"] is False
    assert data["messages"][0]["ack_id"].startswith("$JS.ACK.")
    state = await session.connection.jetstream().consumer_info(stream, consumer)
    assert state.num_ack_pending == 1


async def test_a_cancelled_consume_gives_its_messages_back(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to its own pull, which waits for more: the server may act on a nak before it reads on."""

    async def nak_and_wait(message: Msg) -> None:
        await nak(message)
        await connections[0].flush()

    nak, connections = Msg.nak, []
    monkeypatch.setattr(Msg, "nak", nak_and_wait)
    async with session.leased() as connection:
        connections.append(connection)
    stream, _, consumer = await session.stream(b"a")
    running = asyncio.ensure_future(session.call("js_consume", stream=stream, consumer=consumer, timeout_ms=5000))
    context = session.connection.jetstream()
    while (await context.consumer_info(stream, consumer)).num_ack_pending == 0:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    again = await session.call("js_consume", stream=stream, consumer=consumer, batch=1)
    assert [one["delivered"] for one in again["messages"]] == [2]


@pytest.mark.parametrize("steps", range(8))
async def test_a_pull_that_is_cancelled_twice_gives_its_messages_back_all_the_same(
    session: Session, steps: int
) -> None:
    stream, _, consumer = await session.stream(b"a")
    running = asyncio.ensure_future(pull(session.connection, "poll", stream, consumer, 2, 5.0))
    context = session.connection.jetstream()
    while (await context.consumer_info(stream, consumer)).num_ack_pending == 0:
        await asyncio.sleep(0)
    subscriptions = len(session.connection._subs)
    running.cancel()
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    assert len(session.connection._subs) == subscriptions - 1
    again = await session.call("js_consume", stream=stream, consumer=consumer, batch=1)
    assert [one["delivered"] for one in again["messages"]] == [2]


async def test_messages_of_a_consume_cancelled_before_its_acks_are_sent_are_returned(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def then_cancelled(*arguments: Any) -> list[Any]:
        messages = await pull(*arguments)
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        return messages

    stream, _, consumer = await session.stream(b"a")
    config = {"stream": stream, "consumer": consumer, "batch": 1}
    with monkeypatch.context() as patch:
        patch.setattr(nats_messages, "pull", then_cancelled)
        with pytest.raises(asyncio.CancelledError):
            await session.call("js_consume", **config)
    again = await session.call("js_consume", **config)
    assert [one["delivered"] for one in again["messages"]] == [2]


async def test_a_server_that_goes_away_during_a_consume_is_told_at_once() -> None:
    async with NatsServer() as server:
        connection = await connected(server.url)
        context = connection.jetstream()
        await context.add_stream(StreamConfig(name="S", subjects=["S.>"]))
        await context.add_consumer("S", ConsumerConfig(durable_name="reader"))
        config = {"operation": "js_consume", "stream": "S", "consumer": "reader", "url": server.url}
        reading = asyncio.ensure_future(arun_tool(NatsTool(), {**config, "timeout_ms": 5000}))
        while (await context.consumer_info("S", "reader")).num_waiting == 0:
            await asyncio.sleep(0)
        await connection.close()
        await server.kill()
        with pytest.raises(ToolError) as caught:
            await asyncio.wait_for(reading, 5)  # it is told before the time that it asked for is over
        assert (caught.value.kind, caught.value.retryable) == ("connection", True)


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("nats", {"operation": "js_consume", "batch": 50_000, "timeout_ms": 3_600_000}),
        ("subscription", {"source": "nats", "batch": 99_999, "timeout_ms": 99_999}),
    ],
)
def test_limits_are_hard_whatever_is_asked_for(kind: str, read: dict[str, Any]) -> None:
    """Reading from a stream must not hold a slot."""
    raw = {"url": "nats://h", "stream": "s", "consumer": "c", **read}
    config = Registry(plugins=False).prepare(kind, raw, tool_context()).config
    assert (config.batch, config.timeout_ms) == (1000, 5000)


LESS = "give a smaller 'batch' or 'timeout_ms'"


@pytest.mark.parametrize(
    ("limit", "words", "advice"),
    [
        ({"max_batch": 10}, "Exceeded MaxRequestBatch of 10", LESS),
        ({"max_expires": 500_000_000}, "Exceeded MaxRequestExpires of 500ms", LESS),
        ({"max_bytes": 65_536}, "Exceeded MaxRequestMaxBytes of 65536", "raise it to 16777216"),
    ],
)
async def test_limit_of_the_consumer_below_what_is_asked_for_is_an_error_with_what_to_do(
    session: Session, limit: dict[str, int], words: str, advice: str
) -> None:
    stream, _, _ = await session.stream(b"1")
    config = {"durable_name": "small", "ack_policy": "explicit", **limit}
    body = json.dumps({"stream_name": stream, "config": config}).encode()
    made = await session.connection.request(f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.small", body)
    assert "error" not in json.loads(made.data)
    error = await session.refused("js_consume", stream=stream, consumer="small", batch=100, timeout_ms=1000)
    assert (str(error), error.kind, error.retryable) == (
        f"js_consume failed: consumer 'small' of stream {stream!r} has a limit below this request: {words}; {advice}, "
        "or unset the limit",
        "client_error", False,
    )  # fmt: skip


async def test_get_msg_by_sequence_subject_or_last(session: Session) -> None:
    stream, subject, _ = await session.stream(b"1", b"2", b"3")
    for fields, seq in (({"seq": 2}, 2), ({"subject": subject}, 3), ({"last": True}, 3)):
        data = await session.call("js_get_msg", stream=stream, **fields)
        assert data == {
            "status": "success", "stream": stream, "subject": subject, "seq": seq, "data": seq,
            "headers": {"X-Kind": "item"},
        }  # fmt: skip
    missing = await session.refused("js_get_msg", stream=stream, seq=9)
    assert (str(missing), missing.kind) == ("js_get_msg failed: no message found", "not_found")
    empty, _, _ = await session.stream()
    missing = await session.refused("js_get_msg", stream=empty, last=True)
    assert str(missing) == f"js_get_msg failed: stream {empty!r} is empty"


async def test_stream_info(session: Session) -> None:
    stream, _, _ = await session.stream(b"1", b"22")
    data = await session.call("js_stream_info", stream=stream)
    assert data["config"] == {"name": stream, "subjects": [f"{stream}.>"], "max_msgs": -1, "max_bytes": -1}
    assert data["state"]["bytes"] > 0
    del data["state"]["bytes"]
    assert data["state"] == {"messages": 2, "first_seq": 1, "last_seq": 2, "consumer_count": 1}


# ── what is not there ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("operation", "fields", "message"),
    [
        ("kv_get", {"bucket": "none", "key": "k"}, "kv_get failed: the bucket does not exist"),
        ("kv_put", {"bucket": "none", "key": "k", "value": 1}, "kv_put failed: the bucket does not exist"),
        ("object_list", {"bucket": "none"}, "object_list failed: the bucket does not exist"),
        ("js_stream_info", {"stream": "none"}, "js_stream_info failed: stream not found"),
        (
            "js_consume",
            {"stream": "none", "consumer": "c", "timeout_ms": 50},
            "js_consume failed: consumer 'c' of stream 'none' does not answer: create it before this step",
        ),
    ],
)
async def test_what_does_not_exist_is_not_made(
    session: Session, operation: str, fields: dict[str, Any], message: str
) -> None:
    error = await session.refused(operation, **fields)
    assert (str(error), error.kind, error.retryable) == (message, "not_found", False)
