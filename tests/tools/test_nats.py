"""Kind `nats` against a real server: buckets, objects, messages, credentials, failures."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import nats
import pytest
from nats.js.api import ConsumerConfig, KeyValueConfig, ObjectStoreConfig, StreamConfig

from noetl_worker.dev.nats_server import NatsServer
from noetl_worker.errors import ConfigurationError, CredentialError, ToolError
from noetl_worker.models import ToolResult, ToolStatus
from noetl_worker.testing import RecordedLogger, arun_tool, run_tool, tool_context
from noetl_worker.tools import payload
from noetl_worker.tools.nats_tool import NatsTool
from noetl_worker.tools.registry import Registry

from .nats_service import client, credentials, running


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    yield from running()


class Session:
    """One tool instance, as a worker has it: calls share its connections."""

    def __init__(self, server: NatsServer, connection: Any) -> None:
        self.server, self.connection = server, connection
        self.tool = NatsTool()
        self.registry = Registry([self.tool], plugins=False)
        self.logger = RecordedLogger()

    async def call(self, operation: str, **config: Any) -> Any:
        """The data of one call, as the user who may do everything."""
        result = await self.result(operation, **config)
        assert result.status is ToolStatus.SUCCESS
        return result.data

    async def result(self, operation: str, **config: Any) -> ToolResult:
        context = tool_context(credentials=credentials(self.server), registry=self.registry, logger=self.logger)
        return await self.registry.run_tool("nats", {"operation": operation, "auth": "nats_all", **config}, context)

    async def refused(self, operation: str, **config: Any) -> ToolError:
        with pytest.raises(ToolError) as caught:
            await self.result(operation, **config)
        return caught.value

    async def bucket(self, **options: Any) -> str:
        name = f"kv-{uuid.uuid4().hex[:8]}"
        await self.connection.jetstream().create_key_value(KeyValueConfig(bucket=name, **options))
        return name

    async def store(self) -> str:
        name = f"objects-{uuid.uuid4().hex[:8]}"
        await self.connection.jetstream().create_object_store(name, ObjectStoreConfig(bucket=name))
        return name

    async def stream(self, *bodies: bytes) -> tuple[str, str, str]:
        """(stream, subject, durable consumer) with these messages in it."""
        name = f"S{uuid.uuid4().hex[:8]}"
        context = self.connection.jetstream()
        await context.add_stream(StreamConfig(name=name, subjects=[f"{name}.>"]))
        await context.add_consumer(name, ConsumerConfig(durable_name="reader", ack_wait=30))
        for body in bodies:
            await context.publish(f"{name}.item", body, headers={"X-Kind": "item"})
        return name, f"{name}.item", "reader"


def with_session(server: NatsServer, body: Callable[[Session], Awaitable[None]]) -> None:
    async def run() -> None:
        async with client(server) as connection:
            session = Session(server, connection)
            try:
                await body(session)
            finally:
                await session.registry.aclose()

    asyncio.run(run())


# ── key-value ───────────────────────────────────────────────────────────────────────────────────


def test_put_get_delete_as_the_recorded_playbook_does(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        bucket = await session.bucket()
        put = await session.call("kv_put", bucket=bucket, key="user.1", value={"name": "ada"})
        assert put == {"status": "success", "bucket": bucket, "key": "user.1", "revision": 1}
        got = await session.call("kv_get", bucket=bucket, key="user.1")
        assert got == {
            "status": "success", "bucket": bucket, "key": "user.1", "value": {"name": "ada"}, "revision": 1,
        }  # fmt: skip
        assert await session.call("kv_delete", bucket=bucket, key="user.1") == {
            "status": "success", "bucket": bucket, "key": "user.1",
        }  # fmt: skip
        gone = await session.call("kv_get", bucket=bucket, key="user.1")
        assert gone == {"status": "not_found", "bucket": bucket, "key": "user.1", "value": None, "revision": None}

    with_session(server, body)


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("plain", "plain"),
        ("007", "007"),
        ("", ""),
        ("12", 12),
        (12, 12),
        (None, None),
        ([1, None], [1, None]),
        (False, False),
        ("é", "é"),
    ],
)
def test_values_are_text_or_json(server: NatsServer, stored: Any, read: Any) -> None:
    async def body(session: Session) -> None:
        bucket = await session.bucket()
        if stored is None:
            error = await session.refused("kv_put", bucket=bucket, key="k", value=None)
            assert str(error) == "nats: kv_put requires 'value'"
            return
        await session.call("kv_put", bucket=bucket, key="k", value=stored)
        assert (await session.call("kv_get", bucket=bucket, key="k"))["value"] == read

    with_session(server, body)


def test_bytes_go_in_as_base64_and_come_out_marked(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        bucket = await session.bucket()
        encoded = base64.b64encode(b"\xff\x00").decode()
        await session.call("kv_put", bucket=bucket, key="k", value=encoded, encoding="base64")
        assert (await session.call("kv_get", bucket=bucket, key="k"))["value"] == {"base64": encoded, "size": 2}
        error = await session.refused("kv_put", bucket=bucket, key="k", value="no base64!", encoding="base64")
        assert str(error) == "nats: with encoding base64 the data must be base64 text"

    with_session(server, body)


def test_create_and_update_refuse_another_revision(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        bucket = await session.bucket(history=5)
        assert (await session.call("kv_create", bucket=bucket, key="k", value="a"))["revision"] == 1
        again = await session.refused("kv_create", bucket=bucket, key="k", value="b")
        assert (again.kind, again.code, again.retryable) == ("client_error", "wrong_last_sequence", False)
        assert (await session.call("kv_update", bucket=bucket, key="k", value="c", revision=1))["revision"] == 2
        stale = await session.refused("kv_update", bucket=bucket, key="k", value="d", revision=1)
        assert stale.code == "wrong_last_sequence"
        assert str(stale).startswith("kv_update failed: wrong last sequence")
        deleted = await session.refused("kv_delete", bucket=bucket, key="k", revision=1)
        assert str(deleted).startswith("kv_delete failed: wrong last sequence")
        assert (await session.call("kv_get", bucket=bucket, key="k", revision=1))["value"] == "a"
        await session.call("kv_delete", bucket=bucket, key="k", revision=2)
        assert (await session.call("kv_create", bucket=bucket, key="k", value="e"))["revision"] == 4

    with_session(server, body)


def test_keys_are_sorted_globbed_and_without_deleted_ones(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        bucket = await session.bucket()
        assert await session.call("kv_keys", bucket=bucket) == {
            "status": "success", "bucket": bucket, "keys": [], "count": 0,
        }  # fmt: skip
        for key in ("user.2", "user.1", "order.1", "user.3"):
            await session.call("kv_put", bucket=bucket, key=key, value=1)
        await session.call("kv_delete", bucket=bucket, key="user.3")
        assert (await session.call("kv_keys", bucket=bucket))["keys"] == ["order.1", "user.1", "user.2"]
        assert await session.call("kv_keys", bucket=bucket, pattern="user.*") == {
            "status": "success", "bucket": bucket, "keys": ["user.1", "user.2"], "count": 2,
        }  # fmt: skip

    with_session(server, body)


def test_history_has_every_revision_and_purge_removes_them(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        bucket = await session.bucket(history=5)
        for value in ("a", "b"):
            await session.call("kv_put", bucket=bucket, key="k", value=value)
        await session.call("kv_delete", bucket=bucket, key="k")
        entries = (await session.call("kv_history", bucket=bucket, key="k"))["entries"]
        assert [(one["value"], one["revision"], one["operation"]) for one in entries] == [
            ("a", 1, "PUT"), ("b", 2, "PUT"), (None, 3, "DELETE"),
        ]  # fmt: skip
        assert entries[0]["created"].startswith("20")
        assert (await session.call("kv_history", bucket=bucket, key="none"))["count"] == 0
        assert await session.call("kv_purge", bucket=bucket, key="k") == {
            "status": "success", "bucket": bucket, "key": "k",
        }  # fmt: skip
        entries = (await session.call("kv_history", bucket=bucket, key="k"))["entries"]
        assert [one["operation"] for one in entries] == ["PURGE"]

    with_session(server, body)


def test_watch_ends_at_its_count_or_its_time(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        bucket = await session.bucket()
        await session.call("kv_put", bucket=bucket, key="a", value=1)
        present = await session.call("kv_watch", bucket=bucket, batch=1)
        assert (present["count"], present["timed_out"], present["entries"][0]["value"]) == (1, False, 1)
        nothing = await session.call("kv_watch", bucket=bucket, timeout_ms=50, updates_only=True)
        assert (nothing["count"], nothing["timed_out"]) == (0, True)
        waiting = asyncio.ensure_future(
            session.call("kv_watch", bucket=bucket, pattern="b.>", batch=1, timeout_ms=5000, updates_only=True)
        )
        store = await session.connection.jetstream().key_value(bucket)
        while not waiting.done():  # the watch starts at a moment of its own
            await store.put("a", b"2")
            await store.put("b.1", b"3")
            await asyncio.wait({waiting}, timeout=0.05)
        assert [one["key"] for one in waiting.result()["entries"]] == ["b.1"]

    with_session(server, body)


def test_a_ttl_that_cannot_be_kept_is_a_warning(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        bucket = await session.bucket()
        await session.call("kv_put", bucket=bucket, key="k", value=1, ttl=60)
        assert [event for _, event, _ in session.logger.records] == ["nats_ttl_ignored"]

    with_session(server, body)


# ── objects ─────────────────────────────────────────────────────────────────────────────────────


def test_objects_from_put_to_delete(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        bucket = await session.store()
        assert (await session.call("object_list", bucket=bucket))["objects"] == []
        text = "line\n" * 60_000  # three chunks
        put = await session.call("object_put", bucket=bucket, object="report.txt", data=text, description="d")
        assert put["size"] == 300_000
        got = await session.call("object_get", bucket=bucket, object="report.txt")
        assert got == {"status": "success", "bucket": bucket, "name": "report.txt", "data": text, "size": 300_000}
        info = await session.call("object_info", bucket=bucket, name="report.txt")
        assert info["digest"].startswith("SHA-256=")
        described = {"name": "report.txt", "size": 300_000, "description": "d", "chunks": 3, "digest": info["digest"]}
        assert info == {"status": "success", "bucket": bucket, **described}
        assert await session.call("object_list", bucket=bucket) == {
            "status": "success", "bucket": bucket, "objects": [described], "count": 1,
        }  # fmt: skip
        assert await session.call("object_delete", bucket=bucket, name="report.txt") == {
            "status": "success", "bucket": bucket, "name": "report.txt",
        }  # fmt: skip
        missing = await session.refused("object_get", bucket=bucket, name="report.txt")
        assert (str(missing), missing.kind) == ("object_get failed: the object does not exist", "not_found")

    with_session(server, body)


def test_object_of_bytes_is_asked_for_as_base64(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        bucket = await session.store()
        encoded = base64.b64encode(b"\xff\xfe").decode()
        await session.call("object_put", bucket=bucket, object="o", data=encoded, encoding="base64")
        assert (await session.call("object_get", bucket=bucket, object="o", encoding="base64"))["data"] == encoded
        error = await session.refused("object_get", bucket=bucket, object="o")
        assert (str(error), error.kind) == (
            "object 'o' is not UTF-8 text: ask for it with encoding: base64", "parse",
        )  # fmt: skip

    with_session(server, body)


def test_an_object_above_the_limit_is_not_read(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noetl_worker.tools.nats_kv.MAX_RESULT_BYTES", 10)
    assert payload.MAX_RESULT_BYTES == 16 * 1024 * 1024

    async def body(session: Session) -> None:
        bucket = await session.store()
        too_large = await session.refused("object_put", bucket=bucket, object="o", data="x" * 11)
        assert str(too_large) == "the data of object 'o' has 11 bytes; one call carries at most 10"
        store = await session.connection.jetstream().object_store(bucket)
        await store.put("o", b"x" * 11)
        too_large = await session.refused("object_get", bucket=bucket, object="o")
        assert str(too_large) == "object 'o' has 11 bytes; one call carries at most 10"

    with_session(server, body)


def test_the_tasks_label_is_not_taken_for_the_objects_name(server: NatsServer) -> None:
    """tools.md 8, trap 50: `object` wins over `name`, which one plane leaves in the config as the label."""

    async def body(session: Session) -> None:
        bucket = await session.store()
        put = await session.call("object_put", name="the_label", object="real", bucket=bucket, data="x")
        assert put["name"] == "real"

    with_session(server, body)


# ── messages ────────────────────────────────────────────────────────────────────────────────────


def test_publish_reaches_a_subscriber(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        subscription = await session.connection.subscribe("greet.>")
        await session.connection.flush()
        data = await session.call("publish", subject="greet.ada", data={"n": 1}, headers={"X-N": 5, "X-None": None})
        assert data == {"status": "success", "subject": "greet.ada", "size": 7}
        message = await subscription.next_msg(timeout=5)
        assert (message.data, message.headers) == (b'{"n":1}', {"X-N": "5"})

    with_session(server, body)


def test_request_gets_the_answer(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        async def answer(message: Any) -> None:
            await message.respond(b'{"got":' + message.data + b"}")

        await session.connection.subscribe("ask", cb=answer)
        await session.connection.flush()
        data = await session.call("request", subject="ask", data=[1])
        assert data == {"status": "success", "subject": "ask", "data": {"got": [1]}, "headers": {}}
        nobody = await session.refused("request", subject="nobody.there")
        assert (str(nobody), nobody.kind, nobody.code) == (
            "request failed: nobody answers requests on 'nobody.there'", "connection", "no_responders",
        )  # fmt: skip

    with_session(server, body)


def test_request_that_is_not_answered_ends_in_time(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        await session.connection.subscribe("silent")
        await session.connection.flush()
        error = await session.refused("request", subject="silent", timeout_ms=50)
        assert (error.kind, error.retryable) == ("timeout", True)
        assert str(error) == "request failed: the server did not answer in time"

    with_session(server, body)


def test_js_publish_is_acked_and_told_from_a_repetition(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        stream, subject, _ = await session.stream()
        first = await session.call("js_publish", subject=subject, data="x", message_id="m1")
        assert first == {"status": "success", "stream": stream, "seq": 1, "duplicate": False}
        assert (await session.call("js_publish", subject=subject, data="x", message_id="m1"))["duplicate"] is True
        lost = await session.refused("js_publish", subject="no.stream.here", data="x")
        assert (str(lost), lost.kind) == ("js_publish failed: no stream takes messages on this subject", "not_found")
        other = await session.refused("js_publish", subject=subject, stream="OTHER", data="x")
        assert str(other) == "js_publish failed: expected stream does not match"

    with_session(server, body)


def test_a_message_larger_than_the_server_takes_is_refused_before(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        error = await session.refused("publish", subject="s", data="x" * (1024 * 1024 + 1))
        assert str(error) == (
            "nats: the data has 1048577 bytes, the server takes 1048576; "
            "put it into an object store (object_put) and publish its name"
        )

    with_session(server, body)


def test_consume_returns_and_acks_what_it_returns_only(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        stream, subject, consumer = await session.stream(b'{"n": 1}', b"two", b"\xff")
        data = await session.call("js_consume", stream=stream, consumer=consumer, batch=2)
        assert (data["count"], data["acked"], data["stream"], data["consumer"]) == (2, 2, stream, consumer)
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
        assert (empty["count"], empty["messages"], empty["acked"]) == (0, [], 0)

    with_session(server, body)


def test_consume_without_ack_leaves_the_messages_pending(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        stream, _, consumer = await session.stream(b"a")
        data = await session.call("js_consume", stream=stream, consumer=consumer, ack=False, timeout_ms=50)
        assert data["acked"] == 0
        assert data["messages"][0]["ack_id"].startswith("$JS.ACK.")
        state = await session.connection.jetstream().consumer_info(stream, consumer)
        assert state.num_ack_pending == 1

    with_session(server, body)


def test_a_cancelled_consume_gives_its_messages_back(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        stream, _, consumer = await session.stream(b"a")
        running = asyncio.ensure_future(session.call("js_consume", stream=stream, consumer=consumer, timeout_ms=5000))
        context = session.connection.jetstream()
        while (await context.consumer_info(stream, consumer)).num_ack_pending == 0:
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        again = await session.call("js_consume", stream=stream, consumer=consumer, batch=1)
        assert again["messages"][0]["delivered"] == 2

    with_session(server, body)


def test_a_server_that_goes_away_during_a_consume_is_told_at_once() -> None:
    async def run() -> None:
        async with NatsServer() as server:
            connection = await nats.connect(server.url)
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
                await asyncio.wait_for(reading, 4)
            assert (caught.value.kind, caught.value.retryable) == ("connection", True)

    asyncio.run(run())


def test_limits_are_hard_whatever_is_asked_for(server: NatsServer) -> None:
    """tools.md 8, trap 4: reading from a stream must not hold a slot."""
    context = tool_context()
    raw = {"operation": "js_consume", "stream": "s", "consumer": "c", "batch": 50_000, "timeout_ms": 3_600_000}
    config = Registry([NatsTool()], plugins=False).prepare("nats", raw, context).config
    assert (config.batch, config.timeout_ms) == (1000, 5000)


def test_get_msg_by_sequence_subject_or_last(server: NatsServer) -> None:
    async def body(session: Session) -> None:
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

    with_session(server, body)


def test_stream_info(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        stream, _, _ = await session.stream(b"1", b"22")
        data = await session.call("js_stream_info", stream=stream)
        assert data["config"] == {"name": stream, "subjects": [f"{stream}.>"], "max_msgs": -1, "max_bytes": -1}
        assert data["state"]["bytes"] > 0
        del data["state"]["bytes"]
        assert data["state"] == {"messages": 2, "first_seq": 1, "last_seq": 2, "consumer_count": 1}

    with_session(server, body)


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
            "js_consume failed: consumer 'c' of stream 'none' does not answer: it must exist before",
        ),
    ],
)
def test_what_does_not_exist_is_not_made(
    server: NatsServer, operation: str, fields: dict[str, Any], message: str
) -> None:
    async def body(session: Session) -> None:
        error = await session.refused(operation, **fields)
        assert (str(error), error.kind, error.retryable) == (message, "not_found", False)

    with_session(server, body)


# ── connections and credentials ─────────────────────────────────────────────────────────────────


def test_commands_of_one_credential_share_a_connection(server: NatsServer) -> None:
    """tools.md 8, trap 28: a connection per call churned the server."""

    async def body(session: Session) -> None:
        bucket = await session.bucket()
        before = session.connection.stats["reconnects"]
        calls = [session.call("kv_put", bucket=bucket, key=f"k{number}", value=number) for number in range(20)]
        await asyncio.gather(*calls)
        assert len(session.tool._connections._entries) == 1
        await session.refused("kv_get", auth="nats_narrow", bucket="none", key="k", timeout=0.5)
        assert len(session.tool._connections._entries) == 2
        assert session.connection.stats["reconnects"] == before

    with_session(server, body)


def test_the_surplus_of_unused_connections_is_closed(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noetl_worker.tools.nats_connections.MAX_IDLE", 1)

    async def body(session: Session) -> None:
        bucket = await session.bucket()
        for url in (session.server.url, f"{session.server.url}/", f"nats://localhost:{session.server.port}"):
            await session.call("kv_keys", bucket=bucket, url=url)
        left = list(session.tool._connections._entries)
        assert [address.servers for address in left] == [(f"nats://localhost:{session.server.port}",)]

    with_session(server, body)


def test_aclose_closes_the_connections(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        await session.call("publish", subject="s", data="x")
        (entry,) = session.tool._connections._entries.values()
        connection = entry.client
        await session.registry.aclose()
        assert connection.is_closed
        await session.call("publish", subject="s", data="x")  # and a later call makes a new one

    with_session(server, body)


def test_a_lost_connection_is_made_anew() -> None:
    async def run() -> None:
        async with NatsServer() as server:
            tool = NatsTool()
            config = {"operation": "publish", "subject": "s", "data": "x", "url": server.url}
            registry = Registry([tool], plugins=False)
            await registry.run_tool("nats", config, tool_context())
            await server.stop()
            with pytest.raises(ToolError) as caught:
                await registry.run_tool("nats", config, tool_context())
            assert (caught.value.kind, caught.value.retryable) == ("connection", True)
            await server.start()
            assert (await registry.run_tool("nats", config, tool_context())).status is ToolStatus.SUCCESS
            await registry.aclose()

    asyncio.run(run())


def test_wrong_password_is_an_auth_failure_that_does_not_show_it(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        error = await session.refused("publish", subject="s", auth="nats_wrong")
        assert (error.kind, error.retryable) == ("auth", False)
        assert str(error) == f"cannot connect to {session.server.url}: nats: 'Authorization Violation'"

    with_session(server, body)


def test_a_login_inside_the_url_is_not_shown_and_its_password_is_a_secret(server: NatsServer) -> None:
    secrets: set[str] = set()
    url = f"nats://all:not-this@127.0.0.1:{server.port}"
    with pytest.raises(ToolError) as caught:
        run_tool(NatsTool(), {"operation": "publish", "subject": "s", "url": url}, secrets=secrets)
    assert "not-this" not in str(caught.value)
    assert secrets == {"not-this"}


def test_a_missing_permission_is_told_and_not_only_a_timeout(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        error = await session.refused("js_stream_info", auth="nats_narrow", stream="S", timeout=0.5)
        assert (error.kind, error.code) == ("auth", "permissions_violation")
        assert 'js_stream_info failed: nats: permissions violation for publish to "$js.api.stream.info.s"' in str(error)

    with_session(server, body)


def test_an_unreachable_server_is_a_connection_failure(server: NatsServer) -> None:
    with pytest.raises(ToolError) as caught:
        run_tool(NatsTool(), {"operation": "publish", "subject": "s", "url": "nats://127.0.0.1:1"})
    assert (caught.value.kind, caught.value.retryable) == ("connection", True)
    assert str(caught.value).startswith("cannot connect to nats://127.0.0.1:1: ")


def test_the_whole_call_ends_with_its_timeout(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        stream, _, consumer = await session.stream()
        result = await session.result("js_consume", stream=stream, consumer=consumer, timeout_ms=5000, timeout=0.1)
        assert result.status is ToolStatus.TIMEOUT

    with_session(server, body)


def test_credential_without_url_and_no_connection_at_all(server: NatsServer) -> None:
    config = {"operation": "publish", "subject": "s"}
    with pytest.raises(ConfigurationError) as missing:
        run_tool(NatsTool(), config)
    assert str(missing.value) == "nats: a connection requires 'url', or 'auth' with the alias of a credential"
    with pytest.raises(CredentialError) as incomplete:
        run_tool(NatsTool(), {**config, "auth": "nats_no_url"}, credentials=credentials(server))
    assert str(incomplete.value) == "nats: the credential has no 'url'; register it again with one, or give 'url'"


@pytest.mark.parametrize("url", ["nats://user:word@:4222", "nats://user:word@host:port"])
def test_an_address_that_is_none_is_told_without_its_login(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        run_tool(NatsTool(), {"operation": "publish", "subject": "s", "url": url})
    shown = url.replace("user:word@", "")
    assert str(caught.value) == f"nats: url {shown!r} is none: it looks like nats://host:4222"


def test_an_nkey_that_is_none_is_an_auth_failure_without_it(server: NatsServer) -> None:
    pytest.importorskip("nkeys")
    auth = {"url": server.url, "nkey": "not a seed"}
    with pytest.raises(ToolError) as caught:
        run_tool(NatsTool(), {"operation": "publish", "subject": "s", "auth": auth})
    assert caught.value.kind == "auth"
    assert "not a seed" not in str(caught.value)


def test_a_creds_text_without_its_parts_is_refused(server: NatsServer) -> None:
    aliases = {"broken": {"url": server.url, "creds": "only words"}}
    with pytest.raises(CredentialError) as caught:
        run_tool(NatsTool(), {"operation": "publish", "subject": "s", "auth": "broken"}, credentials=aliases)
    assert str(caught.value) == "nats: 'creds' must be the whole text of a .creds file: a user JWT and an nkey seed"


def test_an_nkey_opens_a_server_that_asks_for_one() -> None:
    nkeys = pytest.importorskip("nkeys")
    seed = b"SUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4GY"
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()

    async def run() -> None:
        async with NatsServer(config=f'authorization {{ users: [ {{ nkey: "{public}" }} ] }}') as server:
            aliases = {"signed": {"url": server.url, "nkey": seed.decode()}}
            config = {"operation": "publish", "subject": "s", "auth": "signed"}
            result = await arun_tool(NatsTool(), config, credentials=aliases)
            assert result.status is ToolStatus.SUCCESS

    asyncio.run(run())


def test_nkeys_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = {"operation": "publish", "subject": "s", "auth": {"url": "nats://127.0.0.1:1", "nkey": "SU"}}
    with pytest.raises(ConfigurationError) as caught:
        run_tool(NatsTool(), config)
    assert str(caught.value) == (
        "nats: a credential with 'creds' or 'nkey' needs nkeys: pip install 'noetl-worker[nkeys]'"
    )


# ── configs ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "nats: field 'operation' is missing"),
        ({"operation": "kv_gett"}, "nats: unsupported operation 'kv_gett'; did you mean 'kv_get'?"),
        ({"operation": "drop"}, "nats: unsupported operation 'drop'"),
        ({"operation": "kv_get", "key": "k"}, "nats: kv_get requires 'bucket'"),
        ({"operation": "kv_get", "bucket": "b"}, "nats: kv_get requires 'key'"),
        ({"operation": "kv_get", "bucket": "", "key": "k"}, "nats: kv_get requires 'bucket'"),
        ({"operation": "kv_update", "bucket": "b", "key": "k", "value": 1}, "nats: kv_update requires 'revision'"),
        ({"operation": "object_get", "bucket": "b"}, "nats: object_get requires 'object' or 'name'"),
        ({"operation": "object_put", "bucket": "b", "name": "n"}, "nats: object_put requires 'data'"),
        ({"operation": "js_publish"}, "nats: js_publish requires 'subject'"),
        ({"operation": "js_consume", "consumer": "c"}, "nats: js_consume requires 'stream'"),
        ({"operation": "js_consume", "stream": "s"}, "nats: js_consume requires 'consumer'"),
        (
            {"operation": "js_get_msg", "stream": "s"},
            "nats: js_get_msg requires 'seq', 'subject' or 'last: true'",
        ),
        (
            {"operation": "js_consume", "stream": "s", "consumer": "c", "batch": 0},
            "nats: 'batch' and 'timeout_ms' must be 1 or more",
        ),
        (
            {"operation": "js_consume", "stream": "s", "consumer": "c", "batch": "many"},
            "nats: field 'batch' must be a whole number, not 'many' (str)",
        ),
        (
            {"operation": "js_stream_info", "stream": "a.b"},
            "nats: stream 'a.b' has a character that no stream may have",
        ),
        ({"operation": "publish", "subject": "a b"}, "nats: subject 'a b' is none: it is words with dots between them"),
        (
            {"operation": "kv_get", "bucket": "b", "key": "k", "encoding": "latin-1"},
            "nats: field 'encoding' must be one of 'utf-8', 'base64', not 'latin-1' (str)",
        ),
        (
            {"operation": "publish", "subject": "s", "headers": {"a": "x\r\nB: y"}, "url": "nats://127.0.0.1:1"},
            None,
        ),
    ],
)
def test_a_broken_config_is_told_with_its_field(config: dict[str, Any], message: str | None) -> None:
    registry = Registry([NatsTool()], plugins=False)
    if message is None:
        assert registry.prepare("nats", config, tool_context()).config.headers == config["headers"]
        return
    with pytest.raises(ConfigurationError) as caught:
        registry.prepare("nats", config, tool_context())
    assert str(caught.value) == message


def test_a_header_with_a_line_break_is_refused(server: NatsServer) -> None:
    async def body(session: Session) -> None:
        error = await session.refused("publish", subject="s", headers={"a": "x\r\nB: y"})
        assert str(error) == "nats: header 'a' has a line break or a colon where none may be"

    with_session(server, body)


def test_spellings_of_both_planes_are_taken() -> None:
    raw = {
        "operation": "KV.Get", "bucket": "b", "key": "k", "nats_url": "nats://h:1", "username": "u",
        "nats_password": "p", "credential": "alias", "timeout_seconds": "2s",
    }  # fmt: skip
    prepared = Registry([NatsTool()], plugins=False).prepare("nats", raw, tool_context())
    config = prepared.config
    assert prepared.warnings == ()
    assert (config.operation, config.url, config.user, config.auth) == ("kv_get", "nats://h:1", "u", "alias")
    assert (config.password, config.timeout) == ("p", 2.0)
