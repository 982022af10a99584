"""What the bridge takes from a control plane, byte for byte, and what it puts into JetStream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import nats
import pytest

from bridge.feed import (
    Publisher,
    body_of,
    bridging,
    command,
    event_ids,
    framed,
    published,
    recorded,
    sent_raw,
    stored,
)
from integration.older_server import older_server
from integration.wire import serving
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.bridge import feed_server, frames
from noetl_worker.bridge.address import FeedAddress
from noetl_worker.bridge.bridge import BridgeOptions
from noetl_worker.bridge.held_records import HeldRecords
from noetl_worker.bridge.record import NotARecord, read_record
from noetl_worker.errors import JetStreamError
from noetl_worker.remote.jetstream.bridge_mark import read_mark
from patience import until


@pytest.fixture
async def server() -> AsyncIterator[NatsServer]:
    async with NatsServer(config="max_payload: 65536") as running:
        yield running


async def test_recorded_frames_get_the_recorded_answers_and_are_stored_unchanged(server: NatsServer) -> None:
    lines = published()
    assert len(lines) > 20
    async with bridging(server.url) as bridge:
        for line in lines:
            body = body_of(line["record"])
            frame = framed(body)
            assert (frame[:4].hex(), body[:64].hex()) == (line["head"], line["body_hex_64"])
            assert (await sent_raw(bridge.port, frame)).hex() == line["ack"]
    found = {one.message_id: one for one in await stored(server)}
    assert len(found) == len({line["record"]["global_sequence"] for line in lines})
    for line in lines:
        kept = found[str(line["notification"]["event_id"])]
        assert (kept.subject, kept.data.decode()) == (line["subject"], line["record"]["payload"])


async def test_frames_come_in_any_pieces_and_many_at_once(server: NatsServer) -> None:
    records = [command(number) for number in range(6)]
    stream = b"".join(framed(body_of(record)) for record in records)
    async with bridging(server.url) as bridge:
        reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
        for at in range(len(framed(body_of(records[0]))) + 5):  # each byte of the first two alone
            writer.write(stream[at : at + 1])
            await asyncio.sleep(0)
        writer.write(stream[at + 1 :])
        answers = await reader.readexactly(8 * len(records))
        writer.transport.abort()
    assert answers == b"".join(record["global_sequence"].to_bytes(8, "big") for record in records)
    assert await event_ids(server) == [record["global_sequence"] for record in records]


async def test_frame_that_is_cut_at_any_byte_is_read_whole() -> None:
    body = body_of(command(1))
    whole = framed(body) * 2
    for cut in range(len(whole) + 1):
        reader = asyncio.StreamReader()
        reader.feed_data(whole[:cut])
        reading = asyncio.ensure_future(frames.read_frame(reader))
        await asyncio.sleep(0)
        reader.feed_data(whole[cut:])
        assert [await reading, await frames.read_frame(reader)] == [body, body]


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


BAD = {
    "an extra field": framed(body_of({**command(1), "extra": 1})),
    "execution_id as a number": framed(body_of({**command(1), "execution_id": 5})),
    "no transaction_id": framed(body_of(without(command(1), "transaction_id"))),
    "not JSON": framed(b"{nonsense"),
    "an event of NOETL_EVENT_BUS": framed(body_of(recorded("event-bus-frames.jsonl")[0]["record"])),
    "a payload that is no object": framed(body_of({**command(1), "payload": "[]"})),
    "HTTP": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "a frame above 1 MiB": (1024 * 1024 + 1).to_bytes(4, "big"),
    "a notification above what NATS takes": framed(body_of(command(1, step="x" * 70_000))),
}


async def test_connection_that_sends_something_else_is_closed_and_counted(
    server: NatsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    async with bridging(server.url) as bridge:
        async with httpx.AsyncClient(trust_env=False) as client:
            url = f"http://127.0.0.1:{bridge.probes_port}/metrics"
            before = counted((await client.get(url)).text, "noetl_bridge_refused_total")
            for what, sent in BAD.items():
                assert await sent_raw(bridge.port, sent) == b"", what
            metrics = (await client.get(url)).text
        assert counted(metrics, "noetl_bridge_refused_total") == before + len(BAD)
        assert "noetl_worker_" not in metrics
        good = command(2)
        answer = await sent_raw(bridge.port, framed(body_of(good)))
        assert answer == good["global_sequence"].to_bytes(8, "big")
    assert capsys.readouterr().err.count("bridge_connection_refused") == 1  # a line a minute for each peer


def counted(text: str, name: str) -> float:
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


@pytest.mark.parametrize(
    ("pool", "token"), [(None, "shared"), ("", "shared"), ("gpu", "gpu"), ("a.b *>c", "a_b___c"), ("system", "system")]
)
def test_subject_is_of_the_commands_pool_as_one_token(pool: str | None, token: str) -> None:
    record = read_record(body_of(command(7, pool=pool)))
    assert record.subject("noetl.commands") == f"noetl.commands.{token}.{record.execution_id}"


def test_record_whose_notification_names_no_command_is_refused() -> None:
    with pytest.raises(NotARecord, match="command_id or event_id is missing"):
        read_record(body_of({**command(1), "payload": '{"event_id":1}'}))


async def test_second_copy_is_acknowledged_and_not_stored(server: NatsServer) -> None:
    async with bridging(server.url) as one, bridging(server.url) as other:
        for bridge in (one, other, one):
            await Publisher(lambda bridge=bridge: bridge.port).publish([command(1)])  # type: ignore[misc]
    assert len(await stored(server)) == 1


async def test_system_pool_alone_goes_on_to_the_writer_and_answers_keep_their_order(server: NatsServer) -> None:
    got: list[bytes] = []
    may_answer = asyncio.Event()

    async def writer_of_upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(4):
            got.append(await reader.readexactly(int.from_bytes(head, "big")))
            await may_answer.wait()
            writer.write((len(got)).to_bytes(8, "big"))  # a number of its own

    records = [command(1), command(2, pool="system"), command(3)]
    async with serving(writer_of_upstream) as url:
        port = int(url.rpartition(":")[2])
        options = BridgeOptions(FeedAddress("127.0.0.1", 0), forward=FeedAddress("127.0.0.1", port))
        async with bridging(server.url, options) as bridge:
            publisher = Publisher(lambda: bridge.port)
            publishing = asyncio.ensure_future(publisher.publish(records))
            await until(lambda: bool(got) and len(bridge.held) == 1, "all but the writer's are stored")
            await until(lambda: bool(publisher.acknowledged), "the first answer")
            assert publisher.acknowledged == [records[0]["global_sequence"]]
            may_answer.set()
            await publishing
    assert got == [body_of(records[1])]
    assert await event_ids(server) == [records[0]["global_sequence"], records[2]["global_sequence"]]


async def test_reading_stops_at_the_limit_while_jetstream_is_away(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noetl_worker.bridge.bridge.HeldRecords", lambda: HeldRecords(most_records=50))
    records = [command(number) for number in range(2000)]
    async with bridging(server.url) as bridge:
        await server.stop()
        publisher = Publisher(lambda: bridge.port, window=2000)
        publishing = asyncio.ensure_future(publisher.publish(records))
        await until(lambda: len(bridge.held) == 50, "the limit")
        assert not bridge.health.ready
        assert publisher.acknowledged == []
        await server.start()
        await publishing
        assert len(bridge.held) == 0
    assert await event_ids(server) == [record["global_sequence"] for record in records]


async def test_idle_connection_makes_room_for_a_new_one(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_server, "MOST_CONNECTIONS", 2)
    async with bridging(server.url) as bridge:
        idle = [await asyncio.open_connection("127.0.0.1", bridge.port) for _ in range(2)]
        await Publisher(lambda: bridge.port).publish([command(1)])
        assert await idle[0][0].read() == b""
        for _, writer in idle:
            writer.transport.abort()


async def test_start_marks_the_stream_and_keeps_what_else_it_has(server: NatsServer) -> None:
    async with bridging(server.url, NOETL_BRIDGE_HEALTH="http://bridge:9090"):
        client = await nats.connect(server.url)
        config = (await client.jetstream().stream_info("NOETL_COMMANDS")).config
        await client.close()
    mark = read_mark({"metadata": config.metadata})
    assert mark is not None
    assert mark.health_url == "http://bridge:9090"
    assert config.subjects == ["noetl.commands", "noetl.commands.>"]


async def test_nats_server_that_keeps_no_metadata_is_refused_with_its_version(server: NatsServer) -> None:
    async with older_server(server.port, "2.9.25") as url:
        with pytest.raises(JetStreamError, match=r"nats-server 2\.9\.25 does not store"):
            async with bridging(url):
                pass


async def test_stream_that_is_deleted_is_made_and_marked_again(server: NatsServer) -> None:
    async with bridging(server.url) as bridge:
        client = await nats.connect(server.url)
        await client.jetstream().delete_stream("NOETL_COMMANDS")
        await Publisher(lambda: bridge.port).publish([command(1)])
        config = (await client.jetstream().stream_info("NOETL_COMMANDS")).config
        await client.close()
        assert read_mark({"metadata": config.metadata}) is not None


async def test_drain_acknowledges_what_is_held_and_takes_nothing_more(server: NatsServer) -> None:
    async with bridging(server.url) as bridge:
        await server.stop()
        publisher = Publisher(lambda: bridge.port)
        publishing = asyncio.ensure_future(publisher.publish([command(number) for number in range(20)]))
        await until(lambda: len(bridge.held) == 20, "held")
        bridge.request_stop()
        await until(lambda: bridge.health.reason == "draining", "draining")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", bridge.port)
        await server.start()
        await publishing
    assert len(await event_ids(server)) == 20


def test_bridge_listens_on_loopback_unless_it_is_told() -> None:
    from noetl_worker.bridge.address import read_address
    from noetl_worker.errors import SettingsError

    assert str(read_address("--publish", ":9100")) == "127.0.0.1:9100"
    assert str(read_address("--publish", "0.0.0.0:9100")) == "0.0.0.0:9100"
    with pytest.raises(SettingsError, match="HOST:PORT"):
        read_address("--publish", "bridge")
