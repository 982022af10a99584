"""The bridge asks upstream's feed: what it says there, and that nothing is lost whatever the coordinator does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from bridge.coordinator import Coordinator
from bridge.feed import bridging, command, event_ids, record_of, recorded
from integration.house import house, noops, without_nats
from integration.processes import typed
from integration.wire import serving
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.bridge import feed_claims, metrics
from noetl_worker.bridge.address import FeedAddress
from noetl_worker.bridge.bridge import Bridge, BridgeOptions
from noetl_worker.bridge.feed_claims import check_filter
from noetl_worker.errors import SettingsError
from noetl_worker.models import Dialect
from patience import until

FILTER = "commands.shared.>"
SOON = {"NOETL_WORKER_DRAIN_TIMEOUT_S": "0.2"}
"""A connection that asks, and gets nothing, is waited for as long."""


def options(*coordinators: Coordinator, **more: Any) -> BridgeOptions:
    addresses = tuple(FeedAddress("127.0.0.1", one.port) for one in coordinators)
    return BridgeOptions(claims=addresses, filters=(FILTER,), **more)


@asynccontextmanager
async def asking(*coordinators: Coordinator, **variables: str) -> AsyncIterator[tuple[Bridge, NatsServer]]:
    """A bridge that asks these coordinators, which serve."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(NatsServer())
        for one in coordinators:
            await stack.enter_async_context(one)
        bridge = await stack.enter_async_context(bridging(server.url, options(*coordinators), **{**SOON, **variables}))
        yield bridge, server


async def taken(coordinator: Coordinator, count: int) -> None:
    await until(lambda: len(coordinator.acknowledged) >= count, f"{count} acknowledged")


async def test_requests_are_the_recorded_ones_and_records_are_stored_before_their_ack() -> None:
    asked = next(line["body"] for line in recorded("claim-frames.jsonl") if '"Next"' in line.get("body", ""))
    acked = next(line["body"] for line in recorded("claim-frames.jsonl") if '"Ack"' in line.get("body", ""))
    records = [command(number) for number in range(50)]
    one = Coordinator()
    async with asking(one) as (_, server):
        one.append(records)
        await taken(one, 50)
        assert await event_ids(server) == [record["global_sequence"] for record in records]
    nexts = {body.decode() for body in one.requests if b"Next" in body}
    acks = [body.decode() for body in one.requests if b"Ack" in body]
    assert {re.sub(r',"heartbeat_ms":5000|\d+', "", body) for body in nexts} == {re.sub(r"\d+", "", asked)}
    assert {re.sub(r"\d+", "", body) for body in acks} == {re.sub(r"\d+", "", acked)}
    assert len(acks) == 50


@pytest.mark.parametrize("text", [">", "commands.>", "commands.*.>", "*.>", "commands.system.>", "commands.*.shard.1"])
def test_filter_that_takes_the_system_pools_commands_has_to_be_wanted(text: str) -> None:
    with pytest.raises(SettingsError, match="--with-system"):
        check_filter(text, with_system=False)
    assert check_filter(text, with_system=True) == text


@pytest.mark.parametrize("text", ["commands.shared.>", "commands.gpu.shard.0"])
def test_filter_of_a_pool_is_taken(text: str) -> None:
    assert check_filter(text, with_system=False) == text


def test_command_says_which_flags_belong_together() -> None:
    for words, reason in (
        ([], "the address that commands come from"),
        (["--claim", ":9101"], "set --claim and --filter together"),
    ):
        ended = typed("bridge", *words)
        assert ended.code == 2
        assert reason in ended.err


Fault = Callable[[Coordinator, NatsServer, float], Awaitable[None]]


async def restarted(one: Coordinator, server: NatsServer, seconds: float) -> None:
    await one.stop()
    await asyncio.sleep(seconds)
    await one.start()


async def hanging(one: Coordinator, server: NatsServer, seconds: float) -> None:
    one.is_hanging = True
    await asyncio.sleep(seconds)
    one.is_hanging = False


async def late_to_acknowledge(one: Coordinator, server: NatsServer, seconds: float) -> None:
    one.ack_delay_s = seconds / 10
    await asyncio.sleep(seconds)
    one.ack_delay_s = 0.0


async def without_jetstream(one: Coordinator, server: NatsServer, seconds: float) -> None:
    await server.stop()
    await asyncio.sleep(seconds)
    await server.start()


DUPLICATE_WINDOW_S = 120
"""Time for which JetStream knows an id, unless a stream says otherwise."""
FAULTS: dict[str, Fault] = {
    "restarted": restarted,
    "hanging": hanging,
    "late to acknowledge": late_to_acknowledge,
    "JetStream away": without_jetstream,
}


async def none_is_lost(fault: str, seconds: float, count: int, times: int, **settings: Any) -> None:
    """Two shards; the fault comes to the first of them."""
    records = [command(number) for number in range(count)]
    shards = [Coordinator(shard=number, **settings) for number in range(2)]
    async with asking(*shards) as (_, server):
        for turn in range(times):
            part = records[turn * count // times : (turn + 1) * count // times]
            for number, shard in enumerate(shards):
                shard.append(part[number::2])
            await until(lambda: len(shards[0].acknowledged) > 0, "some")
            await FAULTS[fault](shards[0], server, seconds)
        for number, shard in enumerate(shards):
            wanted = {record["global_sequence"] for record in shard.log}
            await until(lambda shard=shard, wanted=wanted: wanted <= shard.acknowledged, f"all of shard {number}")  # type: ignore[misc]
        stored = await event_ids(server)
        assert sorted(set(stored)) == sorted(record["global_sequence"] for record in records)
        if seconds * times < DUPLICATE_WINDOW_S:  # beyond it a command is stored again, and its second claim refused
            assert len(stored) == len(set(stored))


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_command_of_two_shards_is_lost_or_stored_twice(fault: str) -> None:
    await none_is_lost(fault, 0.2, count=400, times=2, ack_wait_s=0.5)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seconds", [5, 15, 60])
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_command_of_ten_thousand_is_lost(fault: str, seconds: float) -> None:
    await none_is_lost(fault, seconds, count=10_000, times=3, ack_wait_s=3.0)


async def test_record_under_a_number_that_a_killed_coordinator_had_given_is_another_one() -> None:
    """It loses what it had not sealed, and counts on from there."""
    one = Coordinator()
    async with asking(one) as (bridge, server):
        await server.stop()
        one.append([command(number) for number in range(5)])
        await until(lambda: len(bridge.held) == 5, "five held")
        await one.stop()
        one.log.clear()
        await one.start()
        one.append([command(number) for number in range(100, 105)])
        await until(lambda: len(bridge.held) == 10, "ten held")
        await server.start()
        await taken(one, 5)
        await until(lambda: not len(bridge.held), "all stored")
        records = [command(number) for number in (*range(5), *range(100, 105))]
        assert await event_ids(server) == [record["global_sequence"] for record in records]


async def test_shard_that_is_away_holds_up_no_other() -> None:
    here, away = Coordinator(), Coordinator(shard=1)
    async with asking(here, away) as (_, server):
        await away.stop()
        here.append([command(number) for number in range(20)])
        await taken(here, 20)
        assert len(await event_ids(server)) == 20


async def test_coordinator_without_heartbeats_is_not_called_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_claims, "_SILENT_S", 0.1)
    one = Coordinator(is_later=False)
    async with asking(one):
        await until(lambda: metrics.ASKING.own.value == 1, "asking")
        asked = sum(b"Next" in body for body in one.requests)
        await asyncio.sleep(0.3)  # three times what a silent one is given
        one.append([command(1)])
        await taken(one, 1)
        assert sum(b"Next" in body for body in one.requests) == asked + 1


async def test_three_missed_heartbeats_end_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_claims, "_SILENT_S", 0.1)
    one = Coordinator(ack_wait_s=0.3)
    async with asking(one) as (_, server):
        await until(lambda: bool(one.requests), "asked")
        one.is_hanging = True
        asked = len(one.requests)
        await until(lambda: len(one.requests) > asked, "asked on another connection")
        one.is_hanging = False
        one.append([command(number) for number in range(5)])
        await taken(one, 5)
        assert len(await event_ids(server)) == 5


async def test_what_is_assigned_after_the_stop_is_taken_and_acknowledged() -> None:
    one = Coordinator()
    async with asking(one, NOETL_WORKER_DRAIN_TIMEOUT_S="60") as (bridge, server):
        await until(lambda: bool(one.requests), "waiting")
        bridge.request_stop()
        await until(lambda: bridge.health.reason == "draining", "draining")
        one.append([command(1), command(2)])
        await taken(one, 1)
        await until(lambda: bridge.health.reason == "stopped", "stopped")
        assert await event_ids(server) == [command(1)["global_sequence"]]
    assert sum(b"Next" in body for body in one.requests) == 1


async def test_record_that_is_no_command_is_not_acknowledged_and_stops_nothing() -> None:
    one = Coordinator()
    async with asking(one) as (_, server):
        one.append([{**command(1), "payload": '{"execution_pool":"shared"}'}, command(2)])
        await taken(one, 1)
        assert one.acknowledged == {command(2)["global_sequence"]}
        assert await event_ids(server) == [command(2)["global_sequence"]]


async def test_lag_of_the_feed_and_of_jetstream_stand_beside_each_other() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        text = b'# TYPE ehdb_feed_shard_lag gauge\nehdb_feed_shard_lag{shard="3"} 17\n'
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(text), text))
        writer.close()

    async with serving(serve) as url, Coordinator() as one, NatsServer() as server:
        chosen = options(one, feed_metrics=f"{url}/metrics")
        async with bridging(server.url, chosen, WORKER_NATS_LAG_POLL_INTERVAL="1", **SOON):
            await until(lambda: metrics.FEED_LAG.labels("3").value == 17, "the feed's lag")
            assert metrics.JETSTREAM_LAG.own.value == 0


async def test_command_that_the_feed_gives_again_is_reported_once() -> None:
    async with (
        house(Dialect.RUST, worker=False) as home,
        Coordinator(ack_wait_s=0.2) as one,
        bridging(home.nats.url, options(one), **SOON),
    ):
        home.plane.fault = without_nats("3.83.1")
        await home.start_worker(WORKER_ID="w", WORKER_MAX_CONCURRENT="32")
        issued = await home.plane.create_commands(noops(60), publish=False)
        one.append([record_of(home.notification(command)) for command in issued])
        await taken(one, 30)
        await restarted(one, home.nats, 0.0)
        await home.wait_terminal(*(command.event_id for command in issued))
        await home.wait_settled()
        assert {tuple(home.terminal_events(command.event_id)) for command in issued} == {("command.completed",)}
