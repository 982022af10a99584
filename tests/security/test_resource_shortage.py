"""The machine has no descriptor, process or memory for a command."""

from __future__ import annotations

import dataclasses
import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest

import noetl_worker
import virtual_time
from faults.scene import inside
from integration.house import house
from integration.processes import WorkerProcess, until, worker_process
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.errors import ResourceShortage, ToolError
from noetl_worker.models import Dialect, ToolResult
from noetl_worker.models.disposition import Answer, Disposition
from noetl_worker.pipeline.delivery import acknowledge
from noetl_worker.remote.plane.gate import Gate
from noetl_worker.testing import tool_context
from noetl_worker.tools.kinds.shell.shell import ShellTool
from noetl_worker.tools.process import process
from noetl_worker.tools.python.python_runner import PythonRunner
from noetl_worker.tools.registry import Registry
from patience import PATIENCE_S
from tools.http_server import ToolServer
from tools.processes import open_descriptors
from unit.planes import ScriptedTransport
from unit.test_handover import Beats, Delivery, delivery, execution, script_for

from .commands import interpreter_of

SOURCE = Path(noetl_worker.__file__).resolve().parent.parent
SOON = inside(SET="noetl_worker.pipeline.delivery.acknowledge:MAX_DELAY_S=0.1")
"""In a worker of these tests: what is returned comes again after a tenth of a second, not after one or two."""
ALL_LINES = {"LOG_LEVEL": "debug"}
"""A line for each shortage, not one a minute."""
NOTHING_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


# ── a worker without descriptors ──


def without(worker: WorkerProcess, what: int, least: int) -> Callable[[], None]:
    """A limit of this process, until the returned function is called."""
    pid = worker.process.pid
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (least, before[1]))

    def again() -> None:
        resource.prlimit(pid, what, before)

    return again


def without_descriptors(worker: WorkerProcess) -> Callable[[], None]:
    """Nothing more can be opened by this process."""
    # A new descriptor has the lowest free number, and those of the standard streams are taken. Which others are, only
    # root could see: the worker is not dumpable.
    return without(worker, resource.RLIMIT_NOFILE, 3)


async def returned_once(
    commands: Sequence[RawCommand],
    before: Sequence[RawCommand],
    short: Callable[[WorkerProcess], Callable[[], None]],
    dialect: Dialect,
    place: Path,
) -> None:
    """Each command that is issued while the worker is short of something runs when it no longer is."""
    async with (
        house(dialect, worker=False) as home,
        worker_process(
            home, place, WORKER_ID="pod-0", NOETL_WORKER_STARTED_HOLD_MS="10000", **SOON, **ALL_LINES
        ) as worker,
    ):
        warm = await home.plane.create_commands(before)
        await home.wait_terminal(*(one.event_id for one in warm))
        for command in commands:
            told_before = len(worker.logged("resource_shortage"))
            again = short(worker)
            [issued] = await home.plane.create_commands([command])
            await until(lambda count=told_before: len(worker.logged("resource_shortage")) > count, "it is logged")
            again()
            await home.wait_terminal(issued.event_id)
            assert worker.logged("resource_shortage")[told_before]["returned"] is True
            assert home.terminal_events(issued.event_id) == ["command.completed"]
            assert home.plane.events_of_command(issued.event_id, "call.error") == []
        assert await worker.stop() == 0


def writing(effects: Path) -> dict[str, RawCommand]:
    """A command of each kind that starts something, and writes `x`."""
    effects.touch()
    shell = {"command": f"printf x >> {effects}"}
    return {
        "shell": RawCommand("shell", shell),
        "python": RawCommand("python", {"code": f"open({str(effects)!r}, 'a').write('x')"}),
        "sequence": RawCommand("task_sequence", [{"first": {"kind": "shell", **shell}}]),
    }


@pytest.mark.parametrize("kind", ["shell", "python", "sequence"])
async def test_command_that_finds_no_descriptor_is_returned_and_runs_once(kind: str, tmp_path: Path) -> None:
    """No descriptor to load a kind."""
    effects = tmp_path / "effects"
    command = writing(effects)[kind]
    await returned_once([command], [RawCommand("noop", {})], without_descriptors, Dialect.PYTHON, tmp_path)
    assert effects.read_text() == "x"


async def test_command_of_a_warm_kind_that_finds_no_descriptor_is_returned_and_runs_once(
    dialect: Dialect, tmp_path: Path
) -> None:
    """No descriptor for a warm kind to start something."""
    effects = tmp_path / "effects"
    commands = writing(effects)
    harmless = [RawCommand("python", {"code": "result = 1"}), RawCommand("shell", {"command": ":"})]
    await returned_once([*commands.values()], harmless, without_descriptors, dialect, tmp_path)
    assert effects.read_text() == "x" * len(commands)


@pytest.mark.skipif(os.geteuid() == 0, reason="no count of processes binds root")
@pytest.mark.parametrize("kind", ["shell", "python", "duckdb"])
async def test_command_that_is_refused_a_process_or_a_thread_is_returned_and_runs_once(
    kind: str, dialect: Dialect, tmp_path: Path
) -> None:
    """No process or thread."""
    if kind == "duckdb":
        pytest.importorskip(kind)
    effects = tmp_path / "effects"
    by_sql = RawCommand("duckdb", {"query": f"COPY (SELECT 'x') TO '{effects}' (HEADER false)"})
    command = {**writing(effects), "duckdb": by_sql}[kind]
    short = partial(without, what=resource.RLIMIT_NPROC, least=0)
    await returned_once([command], [RawCommand("noop", {})], short, dialect, tmp_path)
    assert effects.read_text().strip() == "x"


async def test_http_request_that_cannot_connect_is_returned_before_it_was_sent(
    server: ToolServer, tmp_path: Path
) -> None:
    """No descriptor for an HTTP connection."""
    get, warm = RawCommand("http", {"url": server.url("/echo")}), RawCommand("http", {"url": "http://127.0.0.1:9/"})
    await returned_once([get], [warm], without_descriptors, Dialect.PYTHON, tmp_path)
    assert [seen.path for seen in server.requests] == ["/echo"]


async def test_rust_plane_without_worker_id_is_reported_at_once(tmp_path: Path) -> None:
    async with house(Dialect.RUST, worker=False) as home, worker_process(home, tmp_path) as worker:
        [warm] = await home.plane.create_commands([RawCommand("noop", {})])
        await home.wait_terminal(warm.event_id)
        again = without_descriptors(worker)
        [issued] = await home.plane.create_commands([RawCommand("shell", {"command": "true"})])
        await home.wait_terminal(issued.event_id)
        again()
        assert home.terminal_events(issued.event_id) == ["command.failed"]
        [error] = home.plane.events_of_command(issued.event_id, "call.error")
        assert "'error_kind': 'resource'" in repr(error)
        assert [line["returned"] for line in worker.logged("resource_shortage")] == [False]
        assert await worker.stop() == 0


# ── a refused fork, as another user: root is bound by no count of processes ──

REFUSED = """
import asyncio, resource, sys
from noetl_worker.errors import ResourceShortage
from noetl_worker.tools.process.confinement import Confinement
from noetl_worker.tools.python.python_runner import PythonRunner
async def go():
    runner = PythonRunner(confinement=Confinement(sys.argv[1]))
    for way in (
        lambda: runner.run_program("/bin/true", ["true"], env={}, cwd="/"), lambda: runner.run({"code": "result = 1"})
    ):
        try:
            await way()
            print("ran")
        except ResourceShortage as error:
            print("short", error.kind)
# confined, a command has a fork of the template for itself, which is refused; the template itself has room
resource.setrlimit(resource.RLIMIT_NPROC, (int(sys.argv[2]),) * 2)
asyncio.run(go())
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
@pytest.mark.parametrize(("isolation", "processes"), [("off", 0), ("basic", 2)])
def test_refused_fork_is_a_shortage(isolation: str, processes: int) -> None:
    """No process for a fork."""
    # a user that has no other process
    user = ["setpriv", "--reuid=65531", "--regid=65531", "--clear-groups", "--inh-caps=-all"]
    path = os.pathsep.join([str(SOURCE), *filter(None, sys.path)])
    done = subprocess.run(
        [*user, interpreter_of("nobody") or sys.executable, "-c", REFUSED, isolation, str(processes)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path},
    )
    if "Permission denied" in done.stderr:
        pytest.skip("nobody cannot run this interpreter")
    assert done.stdout.split("\n")[:2] == ["short resource", "short resource"], done.stderr


# ── what is done with it ──


@dataclasses.dataclass(frozen=True, slots=True)
class NoConfig:
    pass


class Short:
    """A tool that finds nothing left."""

    kind: ClassVar[str] = "short"
    aliases: ClassVar[tuple[str, ...]] = ()
    config_model: ClassVar[type] = NoConfig
    field_aliases: ClassVar[dict[str, str]] = {}
    raw_fields: ClassVar[frozenset[str]] = frozenset()

    async def run(self, config: NoConfig, context: Any) -> ToolResult:
        raise ResourceShortage("no room")


class Old(Delivery):
    num_delivered = tries = acknowledge.MIN_OLD_DELIVERIES

    def age_s(self) -> float:
        return acknowledge.OLD_AFTER_S + 1


async def short_run(
    dialect: Dialect, message: Any, **variables: str
) -> tuple[Disposition | None, ScriptedTransport, Gate]:
    transport = ScriptedTransport(script_for(dialect, {}, "short"))
    # Once its start is known to the Python plane it cannot be returned: not after 25 ms on a busy machine.
    whole = execution(transport, dialect, Beats(), **{"NOETL_WORKER_STARTED_HOLD_MS": "10000", **variables})
    machine = Gate(8)
    services = dataclasses.replace(whole.services, registry=Registry([Short()], plugins=False), machine=machine)
    whole = dataclasses.replace(whole, services=services)
    return await whole.run(message), transport, machine


async def test_command_is_returned_with_a_delay_no_event_and_fewer_slots(dialect: Dialect) -> None:
    disposition, transport, machine = await short_run(dialect, delivery(dialect), WORKER_ID="pod-0")
    assert disposition is not None
    assert (disposition.answer, disposition.reason) == (Answer.NAK, "short_of_resources")
    assert disposition.delay_s > 0
    assert [path for _, path, _, _ in transport.sent if "events" in path] == []
    assert machine.capacity_fraction() <= 0.5


@pytest.mark.parametrize("why", ["old", "started", "nobody could take it up"])
async def test_command_that_cannot_be_returned_is_reported_as_failed_of_kind_resource(
    dialect: Dialect, why: str
) -> None:
    if (why, dialect) in (("started", Dialect.RUST), ("nobody could take it up", Dialect.PYTHON)):
        ended = acknowledge.short_of_resources(dialect, 1, 0.0, "", can_claim_again=True, is_started=why == "started")
        assert ended is not None  # on the other plane that is no reason
        return
    message = delivery(dialect)
    if why == "old":
        message = Old(message.data)
    variables = {} if why == "nobody could take it up" else {"WORKER_ID": "pod-0"}
    if why == "started":
        assert acknowledge.short_of_resources(dialect, 1, 0.0, "", can_claim_again=True, is_started=True) is None
        return
    disposition, transport, _ = await short_run(dialect, message, **variables)
    assert disposition is not None
    assert disposition.answer is Answer.ACK
    sent = repr(transport.sent)
    assert "call.error" in sent
    assert "kind': 'resource'" in sent
    assert "no room" in sent


# ── what counts as one ──


def failing(number: int) -> Any:
    def popen(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return popen


@pytest.mark.parametrize("number", [*NOTHING_LEFT, errno.ENOENT])
async def test_program_that_cannot_be_started(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left to start a program."""
    monkeypatch.setattr(subprocess, "Popen", failing(number))
    before = open_descriptors()
    with pytest.raises(ToolError) as caught:
        await PythonRunner().run_program("/bin/true", ["true"], env={}, cwd="/")
    assert isinstance(caught.value, ResourceShortage) is (number in NOTHING_LEFT)
    assert open_descriptors() <= before


class EverySecondFails(PythonRunner):
    def __init__(self) -> None:
        super().__init__()
        self._calls = count(1)

    async def run_program(self, *arguments: Any, **named: Any) -> process.Finished:
        if next(self._calls) % 2 == 0:
            raise ResourceShortage("no room")
        return await super().run_program(*arguments, **named)


async def test_shortage_after_an_effect_is_a_failure_of_the_command() -> None:
    registry = Registry([ShellTool(EverySecondFails())], plugins=False)
    context = tool_context(registry=registry)
    with pytest.raises(ToolError) as caught:
        await registry.run_tool("shell", {"command": ["true", "true"]}, context)
    await registry.aclose()
    assert (type(caught.value), caught.value.kind) == (ToolError, "resource")


# ── a later task of a list: the command has had an effect and cannot be returned ──


class ShortFor(Short):
    """A tool that finds nothing left for its first calls."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    async def run(self, config: NoConfig, context: Any) -> ToolResult:
        self.left -= 1
        if self.left >= 0:
            raise ResourceShortage("no room")
        return ToolResult.success("ran")


@virtual_time.PASSES
@pytest.mark.parametrize(("calls", "timeout_s", "ran"), [(3, None, True), (50, None, False), (3, 0.05, False)])
async def test_later_task_of_a_list_waits_for_room_within_its_time(
    calls: int, timeout_s: float | None, ran: bool
) -> None:
    registry = Registry([ShortFor(calls)], plugins=False)
    tasks = [{"first": {"kind": "noop"}}, {"second": {"kind": "short"}}]
    result = await registry.run_tool("task_sequence", tasks, tool_context(registry=registry, timeout_s=timeout_s))
    assert (result.error is None) is ran
    assert result.error is None or result.error.kind == "resource"


async def test_first_task_of_a_list_that_finds_no_room_has_its_command_returned() -> None:
    registry = Registry([ShortFor(1)], plugins=False)
    with pytest.raises(ResourceShortage):
        await registry.run_tool("task_sequence", [{"first": {"kind": "short"}}], tool_context(registry=registry))
