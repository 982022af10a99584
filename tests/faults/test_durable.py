"""F8, F9, F10, F26: the durable or its stream goes, leaders change, a dead peer holds everything, KEDA looks on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import nats
from nats.js.api import ConsumerConfig, StreamConfig

from faults.conftest import Measured
from faults.scene import QUICK, Scene, scene
from faults.test_nats_outage import feeding
from integration.house import TERMINAL
from integration.processes import SHORT_LEASES, Gate, Probe, until
from noetl_worker.authoring.dev.nats_server import NatsServer, free_port
from noetl_worker.authoring.dev.plane import DevControlPlane, RawCommand
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
from noetl_worker.authoring.dev.settings import PlaneSettings
from patience import PATIENCE_S

STREAM, DURABLE = "NOETL_COMMANDS", "noetl_worker"
EACH_LINE = {"LOG_LEVEL": "debug"}
"""Settings of a worker whose repeated lines are counted."""
NEXT = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{DURABLE}"


# ── F8 ──


async def test_f08_durable_deleted_while_pulling_is_made_again(tmp_path: Path, measured: Measured) -> None:
    async with scene(tmp_path) as home, await nats.connect(home.nats.url) as client:
        worker = await home.start_process(**EACH_LINE)
        first = await home.one_more()
        await client.jsm().delete_consumer(STREAM, DURABLE)
        deleted = time.monotonic()
        await until(lambda: len(worker.logged("durable_made")) == 2, "the durable again", every_s=0.01)
        made_s = time.monotonic() - deleted
        second = await home.one_more()
        await home.close_books([first, second])
    measured("F8", "while pulling: made again after", made_s, "s", at_most=1)


async def test_f08_durable_deleted_while_no_pull_is_open_is_made_again_at_the_next(
    tmp_path: Path, measured: Measured
) -> None:
    gate = Gate(tmp_path)
    async with scene(tmp_path) as home, await nats.connect(home.nats.url) as client:
        worker = await home.start_process(WORKER_MAX_CONCURRENT="1", **EACH_LINE)
        [one] = await home.running(gate)  # in the only slot
        await client.jsm().delete_consumer(STREAM, DURABLE)
        gate.open()
        await home.wait_terminal(one.event_id)
        ended = time.monotonic()
        await until(lambda: len(worker.logged("durable_made")) == 2, "the durable again", every_s=0.01)
        made_s = time.monotonic() - ended
        second = await home.one_more()
        await home.assert_books([one, second])
        assert gate.runs == 1
        await home.stop_all()
    measured("F8", "while idle: made again after the next pull", made_s, "s", at_most=2)


async def test_f08_durable_that_cannot_be_used_is_asked_for_rarely(tmp_path: Path, measured: Measured) -> None:
    async with scene(tmp_path) as home, await nats.connect(home.nats.url) as client:
        worker = await home.start_process()
        first = await home.one_more()
        pulls: list[float] = []

        async def count(_: object) -> None:
            pulls.append(time.monotonic())

        await client.subscribe(NEXT, cb=count)
        others = ConsumerConfig(durable_name=DURABLE, filter_subject="noetl.commands.others")
        await client.jsm().delete_consumer(STREAM, DURABLE)
        await client.jsm().add_consumer(STREAM, others)
        broken = time.monotonic()
        await until(lambda: bool(worker.logged("durable_unusable")), "said so")
        await asyncio.sleep(5)  # the span of the fault
        rate = len([one for one in pulls if one > broken]) / (time.monotonic() - broken)
        await client.jsm().delete_consumer(STREAM, DURABLE)
        second = await home.one_more()
        await home.close_books([first, second])
    measured("F8", "pulls a second while it cannot be used", rate, "/s", at_most=1)


# ── F9 ──


async def test_f09_purged_and_deleted_stream(tmp_path: Path, measured: Measured) -> None:
    async with scene(tmp_path) as home, await nats.connect(home.nats.url) as client:
        worker = await home.start_process(**EACH_LINE)
        issued = [await home.one_more()]
        await client.jsm().purge_stream(STREAM)
        issued.append(await home.one_more())
        await client.jsm().delete_stream(STREAM)
        deleted = time.monotonic()
        await until(lambda: len(worker.logged("durable_made")) == 2, "stream and durable again", every_s=0.02)
        made_s = time.monotonic() - deleted
        issued.append(await home.one_more())
        await home.close_books(issued)
    measured("F9", "deleted stream: made again after", made_s, "s", at_most=2)


@contextlib.asynccontextmanager
async def cluster() -> AsyncIterator[list[NatsServer]]:
    """Three servers on loopback, with a stream that each of them keeps."""
    ports: set[int] = set()
    while len(ports) < 6:  # one may be given twice, until its server has it
        ports.add(free_port())
    listening = [*ports][:3]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in listening)
    async with AsyncExitStack() as stack:
        servers = [
            NatsServer(
                port=port,
                config=f'server_name: n{number}\ncluster {{ name: c, listen: "127.0.0.1:{own}", routes: [{routes}] }}',
            )
            for number, (port, own) in enumerate(zip([*ports][3:], listening, strict=True))
        ]
        await asyncio.gather(*(stack.enter_async_context(server) for server in servers))
        async with await nats.connect(servers[0].url) as client:

            async def has_leader() -> bool:
                try:
                    await client.jetstream(timeout=10).add_stream(
                        StreamConfig(name=STREAM, subjects=["noetl.commands", "noetl.commands.>"], num_replicas=3)
                    )
                except (nats.errors.Error, nats.js.errors.APIError):
                    return False
                return True

            await until(has_leader, "a leader of the cluster", every_s=0.2)
        yield servers


async def leaders(client: Any) -> tuple[str, str] | None:
    """The servers that lead the stream and the durable; None while one of them has no leader, who would answer."""
    found = []
    for subject in (f"STREAM.INFO.{STREAM}", f"CONSUMER.INFO.{STREAM}.{DURABLE}"):
        try:
            answer = await client.request(f"$JS.API.{subject}", b"", timeout=0.2)
        except (nats.errors.Error, asyncio.TimeoutError):
            return None
        found.append(json.loads(answer.data).get("cluster", {}).get("leader"))
    return (found[0], found[1]) if all(found) else None


async def leader_beside(ours: str, client: Any) -> str:
    """Who leads the durable, once it is not the server that the plane is connected to."""
    while (found := await leaders(client)) is None or found[1] == ours:
        if found is not None:
            await client.publish(f"$JS.API.CONSUMER.LEADER.STEPDOWN.{STREAM}.{DURABLE}", b"")
    return found[1]


async def test_f09_leaders_change_and_a_node_of_three_is_lost_under_load(tmp_path: Path, measured: Measured) -> None:
    settings = PlaneSettings(pending_retry_s=2.0, reaper_interval_s=0.5)
    async with cluster() as servers, AsyncExitStack() as stack:
        whole = ",".join(server.url for server in servers)
        plane = await stack.enter_async_context(DevControlPlane(settings, nats_url=servers[0].url))
        home = Scene(servers[0], plane, directory=tmp_path, stack=stack)
        await home.start_process(NATS_URL=whole, NOETL_WORKER_ACK_WAIT_S="2")
        issued: list[IssuedCommand] = []
        async with await nats.connect(servers[0].url) as client, feeding(home, issued, per_s=100):
            await until(lambda: home.grants.total() > 50, "load")
            for subject in (f"CONSUMER.LEADER.STEPDOWN.{STREAM}.{DURABLE}", f"STREAM.LEADER.STEPDOWN.{STREAM}"):
                answer = json.loads((await client.request(f"$JS.API.{subject}", b"", timeout=PATIENCE_S)).data)
                assert answer.get("success"), answer
                await home.more_grants(50)
            leader = await leader_beside("n0", client)
            await servers[int(leader.removeprefix("n"))].kill()
            killed = time.monotonic()

            async def elected_again() -> bool:
                return leader not in (await leaders(client) or (leader,))

            await until(elected_again, "other leaders", every_s=0.05)
            elected = time.monotonic()
            before = len(home.claim_times)
            await home.more_grants(50)
        await home.wait_ended(issued)
        assert len(home.claim_times) > before
        back_s = next(at for at in home.claim_times if at > elected) - elected
        await home.close_books(issued)
    print(f"F9: the cluster was without a leader for {elected - killed:.1f} s")
    measured("F9", "a leader's node is lost: first claim after the election", back_s, "s", at_most=3)
    measured("F9", "leaders change: lost", len(issued) - len(home.grants), "", exactly=0)


# ── F10 ──


async def test_f10_dead_peer_that_holds_all_of_max_ack_pending(tmp_path: Path, measured: Measured) -> None:
    gate, port = Gate(tmp_path), free_port()
    limits = {
        "WORKER_MAX_CONCURRENT": "4",
        "NOETL_WORKER_MAX_ACK_PENDING": "4",
        "NOETL_WORKER_ACK_WAIT_S": "2",
        "WORKER_NATS_LAG_POLL_INTERVAL": "1",
        "WORKER_HEARTBEAT_INTERVAL": "0.3",
    }
    async with scene(tmp_path, plane=SHORT_LEASES) as home:
        dead = await home.start_process("dead", **limits)
        held = await home.running(gate, 4)
        alive = await home.start_process("alive", WORKER_METRICS_BIND=f"127.0.0.1:{port}", **limits, **QUICK)
        waiting = await home.plane.create_commands([RawCommand("noop") for _ in range(4)])
        gauge = f'noetl_worker_nats_consumer_ack_pending{{consumer="{DURABLE}",stream="{STREAM}"}} 4.0'

        async def shown() -> bool:
            return gauge in await Probe(port).metrics()

        await until(shown, "the gauge")
        await until(lambda: bool(alive.logged("max_ack_pending_reached")), "the warning")
        assert all(home.plane.command(one.event_id).worker_id is None for one in waiting)
        asked = len(home.claim_times)
        dead.signal(signal.SIGKILL)
        await dead.exit_code()
        killed = time.monotonic()
        await until(lambda: len(home.claim_times) > asked, "a delivery", every_s=0.01)
        resumed_s = home.claim_times[asked] - killed
        gate.open()
        await home.wait_ended([*held, *waiting])
        await home.close_books([*held, *waiting])
    measured("F10", "goes on after (ack_wait 2 s)", resumed_s, "s", at_most=2 + 1)


# ── F26 ──


def trigger_of_the_chart(monitoring: str) -> dict[str, str]:
    """What the chart tells KEDA's scaler, as it comes but for the server it asks."""
    from chart import one, rendered  # skips where the chart cannot be rendered

    (trigger,) = one(rendered({"nats": {"monitoring": monitoring}}), "ScaledObject")["spec"]["triggers"]
    assert trigger["type"] == "nats-jetstream"
    return {str(key): str(value) for key, value in trigger["metadata"].items()}


async def lag_as_keda(client: httpx.AsyncClient, trigger: Mapping[str, str]) -> int:
    """num_pending + num_ack_pending of the durable, asked for as its scaler does with these keys."""
    scheme = {"true": "https", "false": "http"}[trigger["useHttps"]]
    url = f"{scheme}://{trigger['natsServerMonitoringEndpoint']}/jsz"
    answer = (await client.get(f"{url}?acc={trigger['account']}&consumers=true&config=true")).json()
    found: list[Mapping[str, Any]] = [
        consumer
        for account in answer["account_details"]
        if account["name"] == trigger["account"]
        for stream in account["stream_detail"]
        if stream["name"] == trigger["stream"]
        for consumer in stream.get("consumer_detail", [])
        if consumer["name"] == trigger["consumer"]
    ]
    return sum(int(one["num_pending"]) + int(one["num_ack_pending"]) for one in found)


async def lags_while_commands_come_and_end(
    home: Scene, issued: list[IssuedCommand], lag: Callable[[], Awaitable[int]]
) -> list[tuple[int, int]]:
    """(the lag, how many commands were in flight at the plane all the while that it was read)."""

    def in_flight() -> set[str]:
        return set(home.grants) - set(home.ends(issued, *TERMINAL))

    found: list[tuple[int, int]] = []
    while len(found) < 15 or len(home.ends(issued, *TERMINAL)) <= 4 or max(held for _, held in found) <= 1:
        issued += await home.plane.create_commands([RawCommand("shell", {"command": "sleep 0.2"})] * 2)
        before = in_flight()
        read = await lag()
        found.append((read, len(before & in_flight())))
        await asyncio.sleep(0.1)
    return found


async def test_f26_lag_that_keda_reads_covers_what_is_in_flight(tmp_path: Path, measured: Measured) -> None:
    gate, monitoring = Gate(tmp_path), f"127.0.0.1:{free_port()}"
    trigger = trigger_of_the_chart(monitoring)
    async with (
        scene(tmp_path, nats_config=f'http: "{monitoring}"') as home,
        httpx.AsyncClient(trust_env=False, verify=False) as client,
    ):

        def lag() -> Awaitable[int]:
            return lag_as_keda(client, trigger)

        await home.start_process(WORKER_MAX_CONCURRENT="4", NOETL_WORKER_ACK_WAIT_S="1")
        idle = await lag()
        issued = await home.plane.create_commands([RawCommand("shell", {"command": gate.command()})] * 10)
        await until(lambda: gate.runs == 4, "all slots taken")
        lags = []
        for _ in range(15):  # over more than an ack_wait
            lags.append(await lag())
            await asyncio.sleep(0.1)
        gate.open()
        moving = await lags_while_commands_come_and_end(home, issued, lag)
        ended_meanwhile = len(home.ends(issued, *TERMINAL))
        await home.wait_ended(issued)
        await home.assert_books(issued)
        after = await lag()
        await home.stop_all()
    assert ended_meanwhile > 4
    assert max(held for _, held in moving) > 1
    assert [(read, held) for read, held in moving if read < held] == []
    measured("F26", "lag when idle", max(idle, after), "", exactly=0)
    measured("F26", "least lag of 10 commands, 4 in flight", min(lags), "", exactly=10)
