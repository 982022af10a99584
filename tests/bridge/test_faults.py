"""Nothing is lost and each command is reported once, whatever goes away: in small here, at length by `make soak`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bridge.feed import Publisher, bridging, command, event_ids, record_of
from faults.proxy import Proxy
from integration.house import house, noops, without_nats
from integration.processes import WorkerProcess
from noetl_worker.authoring.dev.nats_server import NatsServer, free_port
from noetl_worker.models import Dialect
from patience import until


@dataclass
class Scene:
    """A bridge as a process behind a proxy, and NATS behind another."""

    directory: Path
    nats: NatsServer
    to_nats: Proxy
    port: int = field(default_factory=free_port)
    bridges: list[WorkerProcess] = field(default_factory=list)

    def start(self, port: int | None = None) -> WorkerProcess:
        """Start a bridge."""
        variables = {"NATS_URL": f"nats://127.0.0.1:{self.to_nats.port}", "WORKER_METRICS_BIND": ""}
        words = ["bridge", "--publish", f"127.0.0.1:{port or self.port}"]
        self.bridges.append(WorkerProcess(self.directory, f"bridge-{len(self.bridges)}", variables, words))
        return self.bridges[-1]

    @property
    def running(self) -> WorkerProcess:
        return self.bridges[-1]


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    async with NatsServer() as nats, Proxy(nats.port) as to_nats:
        here = Scene(directory, nats, to_nats)
        try:
            await here.start().wait_logged("bridge_started")
            yield here
        finally:
            for bridge in here.bridges:
                await asyncio.to_thread(bridge.end)


Fault = Callable[[Scene, Proxy, float], Awaitable[None]]


async def jetstream_away(here: Scene, to_bridge: Proxy, seconds: float) -> None:
    await here.nats.stop()
    await asyncio.sleep(seconds)
    await here.nats.start()


async def jetstream_silent(here: Scene, to_bridge: Proxy, seconds: float) -> None:
    here.to_nats.hold()
    await asyncio.sleep(seconds)
    here.to_nats.heal()


async def publisher_cut_off(here: Scene, to_bridge: Proxy, seconds: float) -> None:
    to_bridge.hold()
    await asyncio.sleep(seconds)
    to_bridge.reset()
    to_bridge.heal()


async def killed(here: Scene, to_bridge: Proxy, seconds: float) -> None:
    here.running.signal(signal.SIGKILL)
    await here.running.exit_code()
    await asyncio.sleep(seconds)
    await here.start().wait_logged("bridge_started")


async def terminated(here: Scene, to_bridge: Proxy, seconds: float) -> None:
    assert await here.running.stop() == 0
    await asyncio.sleep(seconds)
    await here.start().wait_logged("bridge_started")


FAULTS: dict[str, Fault] = {
    "jetstream away": jetstream_away,
    "jetstream silent": jetstream_silent,
    "publisher cut off": publisher_cut_off,
    "bridge killed": killed,
    "bridge terminated": terminated,
}


async def none_is_lost(directory: Path, fault: str, seconds: float, count: int, times: int) -> None:
    """Publish `count` records while the fault comes `times` times; one acknowledgement in fifty is lost besides."""
    records = [command(number) for number in range(count)]
    async with scene(directory) as here, Proxy(here.port) as to_bridge:
        lost = {record["global_sequence"] for record in records[::50]}
        publisher = Publisher(lambda: to_bridge.port, lose_ack_of=lost)
        publishing = asyncio.ensure_future(publisher.publish(records))
        for turn in range(times):
            reached = count * (turn + 1) // (times + 2)
            await until(lambda reached=reached: len(publisher.acknowledged) >= reached, f"{reached} records")  # type: ignore[misc]
            await FAULTS[fault](here, to_bridge, seconds)
        await publishing
        assert await here.running.stop() == 0
        assert await event_ids(here.nats) == [record["global_sequence"] for record in records]


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_record_is_lost_or_stored_twice(fault: str, tmp_path: Path) -> None:
    await none_is_lost(tmp_path, fault, 0.2, count=400, times=2)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seconds", [5, 15, 60])
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_record_of_ten_thousand_is_lost(
    fault: str, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.feed.PATIENCE_S", 900.0)
    await none_is_lost(tmp_path, fault, seconds, count=10_000, times=3)


async def rolled(directory: Path, count: int, turns: int) -> None:
    """Two bridges behind one name: one after the other is killed or terminated, and started again."""
    records = [command(number) for number in range(count)]
    async with scene(directory) as here:
        ports = [here.port, free_port()]
        await here.start(ports[1]).wait_logged("bridge_started")
        running = dict(zip(ports, here.bridges, strict=True))
        publisher = Publisher(lambda: ports[0])
        publishing = asyncio.ensure_future(publisher.publish(records))
        for turn in range(turns):
            reached = count * (turn + 1) // (turns + 2)
            await until(lambda reached=reached: len(publisher.acknowledged) >= reached, f"{reached} records")  # type: ignore[misc]
            ports.reverse()  # the next connection meets the other one
            down = running[ports[1]]
            down.signal(signal.SIGKILL if turn % 2 else signal.SIGTERM)
            await down.exit_code()
            running[ports[1]] = here.start(ports[1])
            await running[ports[1]].wait_logged("bridge_started")
        await publishing
        assert await event_ids(here.nats) == [record["global_sequence"] for record in records]


async def test_two_bridges_are_rolled_without_a_loss(tmp_path: Path) -> None:
    await rolled(tmp_path, 400, turns=2)


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_two_bridges_are_rolled_ten_times_under_ten_thousand_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.feed.PATIENCE_S", 900.0)
    await rolled(tmp_path, 10_000, turns=10)


async def reported_once(count: int, **stream: Any) -> None:
    """Each command reaches the worker through two bridges, twice, and is reported once."""
    async with (
        house(Dialect.RUST, worker=False) as home,
        bridging(home.nats.url) as one,
        bridging(home.nats.url) as other,
        home.client() as client,
    ):
        if stream:
            jetstream = client.jetstream()
            config = (await jetstream.stream_info("NOETL_COMMANDS")).config
            await jetstream.update_stream(config.evolve(**stream))
        home.plane.fault = without_nats("3.83.1")
        await home.start_worker(WORKER_ID="w", WORKER_MAX_CONCURRENT="32")
        issued = await home.plane.create_commands(noops(count), publish=False)
        records = [record_of(home.notification(command)) for command in issued]
        lost = {record["global_sequence"] for record in records[::7]}
        await Publisher(lambda: one.port, lose_ack_of=lost).publish(records)
        if stream:
            await asyncio.sleep(2 * stream["duplicate_window"])
        await Publisher(lambda: other.port).publish(records)
        await home.wait_terminal(*(command.event_id for command in issued))
        await home.wait_settled()
        assert {tuple(home.terminal_events(command.event_id)) for command in issued} == {("command.completed",)}
        assert await home.dead_letters() == []
        stored = (await client.jetstream().stream_info("NOETL_COMMANDS")).state.messages
        assert stored >= 2 * count if stream else stored == count


async def test_command_that_comes_twice_within_the_window_is_reported_once() -> None:
    await reported_once(60)


async def test_command_that_comes_twice_beyond_the_window_is_reported_once() -> None:
    await reported_once(60, duplicate_window=0.2)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("stream", [{}, {"duplicate_window": 0.2}], ids=["within", "beyond"])
async def test_ten_thousand_commands_that_come_twice_are_reported_once(
    stream: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.feed.PATIENCE_S", 900.0)
    await reported_once(10_000, **stream)
