"""F12, F13: the worker stands still, or its loop does."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from faults.conftest import Measured
from faults.scene import Scene, inside, scene
from integration.house import run
from integration.processes import SHORT_LEASES, Gate, Probe, until
from noetl_worker.dev.event_log import CommandRow
from noetl_worker.dev.nats_server import free_port
from noetl_worker.dev.plane import RawCommand
from noetl_worker.models import Dialect

BEATS = {"WORKER_HEARTBEAT_INTERVAL": "0.3", "NOETL_WORKER_ACK_WAIT_S": "1"}
QUICK = inside(SET="noetl_worker.acknowledge:MAX_DELAY_S=1")


async def paused_while_it_runs(home: Scene, gate: Gate, port: int | None = None) -> CommandRow:
    """A command whose tool has started in a worker that is paused; its peer is there, `home.processes` are both."""
    bind = {"WORKER_METRICS_BIND": f"127.0.0.1:{port}"} if port else {}
    paused = await home.start_process("paused", WORKER_ID="pod-0", **BEATS, **bind)
    [one] = await home.plane.create_commands([RawCommand("shell", {"command": gate.command()})])
    await until(lambda: gate.runs == 1, "the run")
    await home.plane.wait_until(lambda: bool(home.plane.events_of_command(one.event_id, "command.started")))
    await home.start_process("peer", WORKER_ID="pod-1", **BEATS, **QUICK)
    paused.signal(signal.SIGSTOP)
    return home.plane.command(one.event_id)


def test_f12_worker_that_stood_still_tells_nothing_of_a_command_that_passed_to_another(
    tmp_path: Path, measured: Measured
) -> None:
    async def go() -> None:
        gate = Gate(tmp_path)
        async with scene(tmp_path, plane=SHORT_LEASES) as home:
            port = free_port()
            one = await paused_while_it_runs(home, gate, port)
            paused, _ = home.processes
            await until(lambda: gate.runs == 2, "the peer's run", timeout_s=20)
            gate.open()
            await home.wait_terminal(one.event_id)
            paused.signal(signal.SIGCONT)

            async def dropped() -> bool:
                return "noetl_worker_outcomes_dropped_total 1.0" in await Probe(port).metrics()

            await until(dropped, "the outcome dropped")
            await home.wait_settled()
            assert home.terminal_events(one.event_id) == ["command.completed"]
            calls = home.plane.events_of_command(one.event_id, "call.done", "call.error")
            await home.stop_all()
        measured("F12", "python: call.done of a command that two workers ran", len(calls), "", exactly=1)

    run(go())


def test_f12_worker_that_stood_still_tells_what_is_still_its_own(tmp_path: Path, measured: Measured) -> None:
    async def go() -> None:
        gate = Gate(tmp_path)
        async with scene(tmp_path, Dialect.RUST) as home:
            one = await paused_while_it_runs(home, gate)
            paused, peer = home.processes
            await until(lambda: bool(peer.logged("given_back")), "the peer refused")
            gate.open()
            before = home.grants.total()
            paused.signal(signal.SIGCONT)
            await home.wait_terminal(one.event_id)
            await home.wait_settled()
            assert home.terminal_events(one.event_id) == ["command.completed"]
            asked = home.grants.total() - before
            await home.stop_all()
        measured("F12", "rust: runs of a command that stayed ours", gate.runs, "", exactly=1)
        measured("F12", "rust: asked again whose it is", asked, "", exactly=1)

    run(go())


BLOCKER = '''
import time
from dataclasses import dataclass
from pathlib import Path
from noetl_worker.models import ToolResult


@dataclass(frozen=True, slots=True)
class BlockConfig:
    """Blocks the event loop."""
    seconds: float = 0.0
    """How long."""


class Block:
    kind = "block"
    config_model = BlockConfig
    aliases = ()
    field_aliases = {}
    raw_fields = frozenset()
    side_effecting = True

    async def run(self, config, context):
        Path("blocked").touch()
        time.sleep(config.seconds)
        return ToolResult.success({})
'''


def install_blocker(directory: Path) -> dict[str, str]:
    """A tool of an integrator, by entry point; the environment of a worker that finds it."""
    (directory / "blocker.py").write_text(BLOCKER)
    info = directory / "blocker-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: blocker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[noetl_worker.tools]\nblock = blocker:Block\n")
    given = inside(TASKS=str(directory / "worker.tasks"))
    return {**given, "PYTHONPATH": f"{directory}:{given['PYTHONPATH']}"}


def test_f13_blocked_loop_is_reported_and_costs_no_second_delivery(tmp_path: Path, measured: Measured) -> None:
    async def go() -> None:
        port = free_port()
        variables = {"WORKER_METRICS_BIND": f"127.0.0.1:{port}", "NOETL_WORKER_ACK_WAIT_S": "2"}
        async with scene(tmp_path, plane={"extra_kinds": ("block",)}) as home:
            await home.start_process(**variables, **install_blocker(tmp_path))
            probe = Probe(port)
            [one] = await home.plane.create_commands([RawCommand("block", {"seconds": 10})])
            await until((tmp_path / "blocked").exists, "the loop is blocked")
            blocked = time.monotonic()
            assert (await probe.get("/livez")).status_code == 200

            async def reported() -> bool:
                return (await probe.get("/livez")).status_code == 503

            await until(reported, "liveness 503")
            reported_s = time.monotonic() - blocked
            await home.wait_terminal(one.event_id, timeout_s=15)

            async def alive() -> bool:
                return (await probe.get("/livez")).status_code == 200

            await until(alive, "alive again")
            await home.assert_books([one])
            await home.stop_all()
            deliveries = home.asked[one.event_id]
        measured("F13", "liveness 503 after", reported_s, "s", at_most=6)
        measured("F13", "deliveries over five ack_waits", deliveries, "", exactly=1)

    run(go())
