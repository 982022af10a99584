"""A command ends each worker it runs in."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import nats
import pytest
from nats.aio.msg import Msg
from structlog.testing import capture_logs

from faults.scene import inside
from integration.house import House, house
from integration.processes import SHORT_LEASES, Gate, Probe, WorkerProcess, starting_process, until
from noetl_worker.authoring.dev.nats_server import NatsServer, free_port
from noetl_worker.authoring.dev.plane import DevControlPlane, RawCommand
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models import Dialect
from noetl_worker.models.slots import Slots
from noetl_worker.observability.series import REGISTRY
from noetl_worker.remote.jetstream.connection import connect
from noetl_worker.remote.jetstream.start_notes import BUCKET, MOST_STARTS, StartNotes, ensure_bucket
from noetl_worker.settings.settings import load_settings
from plug_ins import install
from unit import planes

STOPS_THE_LOOP = """
import dataclasses, time

@dataclasses.dataclass
class Config:
    def __post_init__(self):
        time.sleep(600)

class Stops:
    kind, aliases, config_model, field_aliases = "stops", (), Config, {}
    raw_fields = frozenset()

    async def run(self, config, context):
        raise AssertionError("its config is never read")
"""


# ── real workers, killed by what they run ──


async def killed_until_told(
    dialect: Dialect, directory: Path, killer: RawCommand, probe: Probe | None = None, plug_ins: str = ""
) -> None:
    """`probe`: who has a worker killed that says that it is not alive."""
    innocent_ran = directory / "innocent"
    innocent = RawCommand("shell", {"command": f"sleep 1; echo x >> {innocent_ran}"})
    variables = {"WORKER_ID": "pod-0", "NOETL_WORKER_ACK_WAIT_S": "1", "NOETL_WORKER_ISOLATION": "off"}
    short = "noetl_worker.pipeline.delivery.acknowledge:MAX_DELAY_S=1"  # of a claim that the dead worker still holds
    short += " noetl_worker.observability.probes:BLOCKED_AFTER_S=1"
    variables |= inside(SET=f"{short} noetl_worker.remote.jetstream.start_notes:_TRY_S=20")  # on a busy machine
    variables["PYTHONPATH"] += os.pathsep + plug_ins
    if probe is not None:
        variables["WORKER_METRICS_BIND"] = f"127.0.0.1:{probe.port}"
    killed = 0
    async with house(dialect, plane=SHORT_LEASES, worker=False) as home:
        issued: list[IssuedCommand] = []
        while killed <= 1 + MOST_STARTS:
            async with starting_process(home, directory, f"worker-{killed}", **variables) as worker:
                await worker.wait_logged("pulling")
                issued = issued or await home.plane.create_commands([killer, innocent])
                told = asyncio.ensure_future(home.wait_terminal(*(one.event_id for one in issued)))
                ended = asyncio.ensure_future(worker.exit_code())
                kubelet = asyncio.ensure_future(kill_when_not_alive(worker, probe))
                await asyncio.wait({told, ended}, return_when=asyncio.FIRST_COMPLETED)
                kubelet.cancel()
                if told.done():
                    ended.cancel()
                    await home.wait_settled()  # both are acknowledged: neither comes again
                    assert await worker.stop() == 0
                    break
                told.cancel()
                assert ended.result() == -9
                killed += 1
        assert killed == 1 + MOST_STARTS  # the first delivery has no note
        ends = [home.terminal_events(one.event_id) for one in issued]
        assert ends == [["command.failed"], ["command.completed"]]
        [error] = home.plane.events_of_command(issued[0].event_id, "call.error")
        assert "worker_lost" in repr(error)
        assert "3 workers in a row" in repr(error)
    assert set(innocent_ran.read_text().split()) == {"x"}


async def kill_when_not_alive(worker: WorkerProcess, probe: Probe | None) -> None:
    async def is_blocked() -> bool:
        try:
            answer = await probe.get("/livez") if probe is not None else None
        except httpx.TransportError:
            return False
        return answer is not None and "event loop has been blocked" in answer.text

    if probe is not None:
        await until(is_blocked, "the loop stands still")
        worker.signal(signal.SIGKILL)


async def test_command_that_kills_its_workers_is_reported_as_failed_and_those_beside_it_run(tmp_path: Path) -> None:
    """`kill -9` of the parent's parent ends worker after worker, and with each the commands that run beside it."""
    kills = "sleep 0.3; read _ _ _ worker _ < /proc/$PPID/stat; kill -9 $worker"
    await killed_until_told(Dialect.PYTHON, tmp_path, RawCommand("shell", {"command": kills}))


async def test_command_that_hangs_its_workers_is_reported_as_failed_and_those_beside_it_run(tmp_path: Path) -> None:
    """A command blocks the loop until `/livez` has the worker killed."""
    (tmp_path / "stops_the_loop.py").write_text(STOPS_THE_LOOP)
    install(tmp_path, "stops", "stops_the_loop:Stops")
    await killed_until_told(Dialect.RUST, tmp_path, RawCommand("stops", {}), Probe(free_port()), str(tmp_path))


async def all_possible(noted: int) -> int:
    return noted


VICTIM = """
echo x >> {0}/starts
if [ $(ls {0} | grep -c death) -lt {1} ]; then read line < {0}/gate; else sleep 1; fi
echo x >> {0}/ends
"""
"""It runs until its worker is killed, but for the last start that it may have."""
KILLER = """
[ -e {0}/death-{1} ] && exit
tries=0
until [ $(cat {0}/starts | wc -l) -gt {1} ] || [ $tries -gt 40 ]; do sleep 0.1; tries=$((tries + 1)); done
touch {0}/death-{1}
read _ _ _ worker _ < /proc/$PPID/stat
kill -9 $worker
"""


async def test_neighbour_of_commands_that_kill_worker_after_worker_is_not_failed(tmp_path: Path) -> None:
    """Command after command ends the worker, each once: the one beside them would have had its last start."""
    os.mkfifo(tmp_path / "gate")
    (tmp_path / "starts").touch()
    victim = RawCommand("shell", {"command": VICTIM.format(tmp_path, MOST_STARTS)})
    variables = {"WORKER_ID": "pod-0", "NOETL_WORKER_ACK_WAIT_S": "1", "NOETL_WORKER_ISOLATION": "off"}
    short = (
        "noetl_worker.pipeline.delivery.acknowledge:MAX_DELAY_S=1 noetl_worker.remote.jetstream.start_notes:_TRY_S=20"
    )
    variables |= inside(SET=short)
    async with house(Dialect.PYTHON, plane=SHORT_LEASES, worker=False) as home:
        issued = await home.plane.create_commands([victim])
        for number in range(2 * MOST_STARTS + 2):
            async with starting_process(home, tmp_path, f"worker-{number}", **variables) as worker:
                await worker.wait_logged("pulling")
                if number <= MOST_STARTS:
                    killer = RawCommand("shell", {"command": KILLER.format(tmp_path, number)})
                    issued += await home.plane.create_commands([killer])
                told = asyncio.ensure_future(home.wait_terminal(*(one.event_id for one in issued)))
                ended = asyncio.ensure_future(worker.exit_code())
                await asyncio.wait({told, ended}, return_when=asyncio.FIRST_COMPLETED)
                if told.done() and number >= MOST_STARTS:
                    ended.cancel()
                    await home.wait_settled()
                    assert await worker.stop() == 0
                    break
                told.cancel()
                assert ended.result() == -9
        assert len(list(tmp_path.glob("death-*"))) == 1 + MOST_STARTS
        ends = [home.terminal_events(one.event_id) for one in issued]
        assert ends == [["command.completed"]] * len(issued)
    assert set((tmp_path / "ends").read_text().split()) == {"x"}


# ── what is said to the bucket ──


@asynccontextmanager
async def overheard(url: str) -> AsyncIterator[list[Msg]]:
    """Everything that is said to the bucket."""
    said: list[Msg] = []

    async def hear(message: Msg) -> None:
        said.append(message)

    async with await nats.connect(url) as client:
        await ensure_bucket(client)  # with a listener, its absence would not be noticed
        for subject in (f"$KV.{BUCKET}.>", f"$JS.API.*.*.KV_{BUCKET}", f"$JS.API.*.*.*.KV_{BUCKET}"):
            await client.subscribe(subject, cb=hear)
        await client.flush()
        yield said


def notes_in(said: list[Msg]) -> list[list[dict[str, str]]]:
    """Those that were written; where nobody has made the bucket yet, the first one is sent twice."""
    written = {one.data for one in said if one.subject.startswith("$KV.") and one.data}
    return [json.loads(one) for one in written]


async def delivered_twice(home: House, command: RawCommand) -> IssuedCommand:
    """A command whose first claim the plane refuses; its end."""
    home.refuse_first_claims()
    [issued] = await home.plane.create_commands([command])
    await home.wait_terminal(issued.event_id)
    await home.wait_settled()
    return issued


async def test_command_that_is_delivered_once_sends_nothing_to_the_bucket(dialect: Dialect) -> None:
    async with house(dialect) as home, overheard(home.nats.url) as said:
        [issued] = await home.plane.create_commands([RawCommand("shell", {"command": "true"})])
        await home.wait_terminal(issued.event_id)
        await home.wait_settled()
        assert said == []


@pytest.mark.parametrize(
    "command",
    [
        RawCommand("shell", {"command": "true"}),
        RawCommand("shell", {"command": "false"}),
        RawCommand("noop", {}),
        RawCommand("no-such-kind", {}),
    ],
)
async def test_note_is_taken_away_at_the_end_of_its_command(command: RawCommand) -> None:
    async with house(Dialect.RUST) as home, overheard(home.nats.url) as said:
        await delivered_twice(home, command)
        [[note]] = notes_in(said)
        assert set(note) == {"worker", "at"}
        async with await nats.connect(home.nats.url) as client:
            bucket = await client.jetstream().key_value(BUCKET)
            with pytest.raises(nats.js.errors.NoKeysError):
                await bucket.keys()


async def test_worker_without_permission_warns_once_with_the_line_to_add_and_runs_the_command() -> None:
    denied = f'permissions: {{ publish: {{ deny: ["$KV.{BUCKET}.>", "$JS.API.STREAM.MSG.GET.KV_{BUCKET}"] }} }}'
    config = f'authorization {{ users: [ {{ user: w, password: "w", {denied} }} ] }}\nno_auth_user: w'
    async with (
        NatsServer(config=config) as server,
        DevControlPlane(PlaneSettings(dialect=Dialect.RUST), nats_url=server.url) as plane,
    ):
        home = House(server, plane)
        try:
            with capture_logs() as logs:
                await home.start_worker()
                for _ in range(2):
                    issued = await delivered_twice(home, RawCommand("shell", {"command": "true"}))
                    assert home.terminal_events(issued.event_id) == ["command.completed"]
            [told] = [line for line in logs if line["event"] == "start_not_recorded"]
            assert f"$KV.{BUCKET}.>" in told["advice"]
        finally:
            await home.close()


async def test_copy_that_the_python_plane_publishes_is_no_first_delivery() -> None:
    """The plane publishes such a command again, as a new message."""
    async with house(worker=False) as home, overheard(home.nats.url) as said:
        [issued] = await home.plane.create_commands([RawCommand("shell", {"command": "true"})])
        async with await nats.connect(home.nats.url) as client:
            await client.jsm().purge_stream("NOETL_COMMANDS")
        row = home.plane.log.command(issued.event_id)
        assert row is not None
        home.plane.dispatcher.requeue(row, as_text=True)
        await home.plane.dispatcher.flush()
        await home.start_worker()
        await home.wait_terminal(issued.event_id)
        await home.wait_settled()
        assert len(notes_in(said)) == 1


async def test_nothing_is_pulled_while_a_command_is_on_its_last_start(dialect: Dialect, tmp_path: Path) -> None:
    """(no attack) What comes meanwhile is for other workers, or runs here afterwards; a gauge says so."""
    last = json.dumps([{"worker": "w", "at": "then"}] * (MOST_STARTS - 1)).encode()
    gate = Gate(tmp_path)

    def gauge() -> float | None:
        return REGISTRY.get_sample_value("noetl_worker_last_start")

    async with house(dialect, plane={"retry_after_s": 0}, worker=False) as home, home.client() as client:
        [alone] = await home.plane.create_commands([RawCommand("shell", {"command": gate.command()})])
        await ensure_bucket(client)
        await client.jetstream().publish(f"$KV.{BUCKET}.{alone.execution_id}.{alone.event_id}", last)
        home.plane.claims.hold(alone.event_id)
        worker = await home.start_worker()
        await until(
            lambda: worker.deliveries.settled.total() >= MOST_STARTS, "it was delivered as often as its notes say"
        )
        home.plane.claims.release(alone.event_id)
        await until(lambda: gate.runs == 1, "it is on its last start")
        [beside] = await home.plane.create_commands([RawCommand("noop", {})])
        await until(lambda: gauge() == 1, "the gauge says so")
        assert (worker.slots.window(), worker.slots.free()) == (0, 0)
        gate.open()
        await home.wait_terminal(alone.event_id, beside.event_id)
        await home.wait_settled()
        ended = home.plane.events_of_command(alone.event_id, "command.completed")[0]
        started = home.plane.events_of_command(beside.event_id, "command.claimed")[0]
        assert started.event_id > ended.event_id
        await until(lambda: gauge() == 0, "the worker pulls again")


async def test_command_that_waits_for_another_lets_that_one_have_its_last_start() -> None:
    """(no attack) A parent on its last start waits for its child, which is on its last one, too."""
    last = json.dumps([{"worker": "w", "at": "then"}] * (MOST_STARTS - 1)).encode()
    parent, child = (planes.command(event_id=number) for number in (2, 3))
    async with NatsServer() as server:
        connection = await connect(load_settings({"NATS_URL": server.url}), "w")
        await ensure_bucket(connection.client)
        for one in (parent, child):
            await connection.client.jetstream().publish(f"$KV.{BUCKET}.{one.execution_id}.{one.event_id}", last)
        notes, slots = StartNotes(connection, "w"), Slots(2)
        async with notes.noted(parent, slots, all_possible) as start:
            with start.waiting("playbook"):
                with anyio.fail_after(10):
                    async with notes.noted(child, slots, all_possible) as childs:
                        assert not childs.is_lost
        await connection.close()
