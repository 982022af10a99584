"""A house for worker processes, with the books a fault test closes at its end: the invariant, in one place."""

from __future__ import annotations

import asyncio
import inspect
import shlex
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import nats

from holds import HOLDS_TIMES
from integration.house import TERMINAL, House
from integration.processes import Gate, WorkerProcess, guarded, until, worker_process
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.authoring.dev.plane import DevControlPlane, RawCommand
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models import Dialect
from patience import PATIENCE_S

T = TypeVar("T")
ONE_PLANE: Final = tuple(Dialect) if HOLDS_TIMES else (Dialect.PYTHON,)
"""For a fault in which the plane has no part: `make faults` injects it beside both."""
CALLS: Final = ("call.done", "call.error")


async def side_by_side(*mains: Coroutine[Any, Any, T]) -> list[T]:
    """The results of all, each run to its end: one that fails must not leave the scene of another half closed."""
    found = await asyncio.gather(*mains, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return [one for one in found if not isinstance(one, BaseException)]


def beside_both_planes(main: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Coroutine[Any, Any, None]]:
    """A test of both planes at once, which mostly waits; where times are held, of one after the other."""

    async def test(tmp_path: Path, **fixtures: Any) -> None:
        runs = []
        for dialect in Dialect:
            (directory := tmp_path / dialect.value).mkdir()
            runs.append(main(dialect=dialect, tmp_path=directory, **fixtures))
            if HOLDS_TIMES:
                await runs.pop()
        await side_by_side(*runs)

    test.__name__, test.__doc__, test.__module__ = main.__name__, main.__doc__, main.__module__
    whole = inspect.signature(main)
    given = [one for one in whole.parameters.values() if one.name != "dialect"]
    test.__signature__ = whole.replace(parameters=given)  # type: ignore[attr-defined]
    return test


def inside(**changes: str) -> dict[str, str]:
    """Environment that changes the inside of a worker process (inside/sitecustomize.py), FAULTS_ left out."""
    kept = {name: value for name, value in guarded(Path()).items() if name != "FAULTS_STEPS"}
    return {**kept, **{f"FAULTS_{name}": value for name, value in changes.items()}}


QUICK: Final = inside(SET="noetl_worker.pipeline.delivery.acknowledge:MAX_DELAY_S=1")
"""Refused claims are returned for a second at most, not for up to 30 s."""
OUTBOX = (".sqlite3", ".sqlite3-wal", ".sqlite3-shm", ".lock")


@dataclass(frozen=True)
class Leftovers:
    """What a process holds that must not grow: descriptors that are no sockets, sockets, children, asyncio tasks.

    One outbox aside: it is opened when it is first needed.
    """

    files: int
    sockets: int
    children: int
    tasks: int | None = None

    @classmethod
    def count(cls, pid: int, tasks: int | None = None) -> Leftovers:
        names = []
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                names.append(str(entry.readlink()))
            except FileNotFoundError:  # closed while we look
                continue
        sockets = sum(name.startswith("socket:") for name in names)
        of_outbox = sum(any(name.endswith(end) for name in names) for end in OUTBOX)
        return cls(len(names) - sockets - of_outbox, sockets, len(children_of(pid)), tasks)


def children_of(pid: int) -> list[int]:
    """All descendants, zombies included."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in thread.read_text(encoding="ascii").split():
            found += [int(child), *children_of(int(child))]
    return found


@dataclass
class Scene(House):
    """A house without a worker in this process, whose claims are counted."""

    directory: Path = Path()
    grants: Counter[str] = field(default_factory=Counter)
    """Claims answered with the command, by command_id as text."""
    asked: Counter[int] = field(default_factory=Counter)
    """Claims by the command's event id, whatever the answer."""
    claim_times: list[float] = field(default_factory=list)
    processes: list[WorkerProcess] = field(default_factory=list)
    durables: tuple[str, ...] = ("noetl_worker",)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def __post_init__(self) -> None:
        self.stack.callback(self.outbox.cleanup)  # the first in, so the last out: after the workers
        claim = self.plane.claims.claim

        def counted(event_id: int, worker_id: str) -> Any:
            answer = claim(event_id, worker_id)
            self.asked[event_id] += 1
            self.claim_times.append(time.monotonic())
            if answer.status == 200:
                self.grants[self.plane.command(event_id).command_ref] += 1
            return answer

        self.plane.claims.claim = counted  # type: ignore[method-assign]

    async def start_process(self, name: str = "worker", **variables: str) -> WorkerProcess:
        """A worker process that pulls; it ends with the scene. Its tasks can be counted."""
        changes = inside(TASKS=str(self.directory / f"{name}.tasks"))
        given = {**changes, **variables}
        worker = await self.stack.enter_async_context(worker_process(self, self.directory, name, **given))
        self.processes.append(worker)
        return worker

    async def unsettled(self) -> int:
        async with await nats.connect(self.nats.url) as client:
            found = [await client.jsm().consumer_info("NOETL_COMMANDS", name) for name in self.durables]
            return sum(int(info.num_pending or 0) + int(info.num_ack_pending or 0) for info in found)

    async def running(self, gate: Gate, count: int = 1) -> list[IssuedCommand]:
        """Commands that have started, and wait at the gate."""
        issued = await self.plane.create_commands([RawCommand("shell", {"command": gate.command()})] * count)
        await until(lambda: gate.runs == count, f"{count} run")
        return issued

    async def one_more(self) -> IssuedCommand:
        """A command that has come to its end."""
        [one] = await self.plane.create_commands([RawCommand("noop")])
        await self.wait_terminal(one.event_id)
        return one

    @property
    def effects_file(self) -> Path:
        return self.directory / "effects"

    def effect(self, before: str = "") -> RawCommand:
        """A shell command whose side effect is a line with its command_id."""
        return RawCommand(
            "shell", {"command": f"{before}echo '{{{{ command_id }}}}' >> {shlex.quote(str(self.effects_file))}"}
        )

    @property
    def effects(self) -> Counter[str]:
        return Counter(self.effects_file.read_text().split()) if self.effects_file.exists() else Counter()

    def ends(self, issued: Sequence[IssuedCommand], *event_types: str) -> Counter[str]:
        """How many events of these types each command has."""
        found: Counter[str] = Counter()
        query = (  # asked ten times a second: the events themselves would have to be parsed
            "SELECT command_ref, COUNT(*) FROM events WHERE execution_id = ? AND command_ref <> '' "
            f"AND event_type IN ({', '.join('?' * len(event_types))}) GROUP BY command_ref"
        )
        for execution_id in dict.fromkeys(one.execution_id for one in issued):
            found.update(dict(self.plane.log.db.execute(query, (execution_id, *event_types))))
        return found

    async def wait_ended(self, issued: Sequence[IssuedCommand], *, within_s: float = PATIENCE_S) -> None:
        """Wait until each has a terminal event."""

        def ended() -> bool:
            return len(self.ends(issued, *TERMINAL)) == len(issued)

        await until(ended, "all ended", every_s=0.1, within_s=within_s)

    async def forget_delays(self) -> None:
        """Delete the durable: the worker makes it again, and what waits for a delay comes at once (F8)."""
        async with await nats.connect(self.nats.url) as client:
            await client.jsm().delete_consumer("NOETL_COMMANDS", "noetl_worker")

    async def more_grants(self, count: int) -> None:
        """Wait for a stretch of load: so many more commands given to a worker.

        A flush of the plane's that a killed server never answered holds its feeding up for 10 s.
        """
        wanted = self.grants.total() + count
        await until(lambda: self.grants.total() >= wanted, f"{count} more commands claimed")

    async def tasks_of(self, worker: WorkerProcess) -> int:
        """Asyncio tasks of a worker that are not done."""
        file = self.directory / f"{worker.log_path.stem}.tasks"
        file.unlink(missing_ok=True)
        worker.signal(signal.SIGUSR2)
        await until(file.exists, "the count of tasks")
        return int(file.read_text(encoding="ascii"))

    async def leftovers(self, worker: WorkerProcess) -> Leftovers:
        return Leftovers.count(worker.process.pid, await self.tasks_of(worker))

    async def assert_holds_no_more(self, worker: WorkerProcess, before: Leftovers, *, sockets: int = 32) -> None:
        """What the worker held when it was idle before; sockets may stay in the HTTP pool, at most `sockets` more."""

        async def same() -> bool:
            now = await self.leftovers(worker)
            return (
                now.files <= before.files
                and now.children <= before.children
                and (now.tasks or 0) <= (before.tasks or 0)
                and now.sockets <= before.sockets + sockets
            )

        try:
            await until(same, "nothing left", every_s=0.2)
        except TimeoutError:
            now = await self.leftovers(worker)
            raise AssertionError(f"left behind: {now}, before: {before}") from None

    async def assert_books(self, issued: Sequence[IssuedCommand], *, calls_at_most: int | None = 1) -> None:
        """The invariant: one outcome each, no tool run without its claim, nothing unacknowledged.

        `calls_at_most` None: only the terminal event is counted, not the call event before it.
        """
        refs = [str(one.command_id) for one in issued]
        ends = self.ends(issued, *TERMINAL)
        assert Counter(ends[ref] for ref in refs) == {1: len(refs)}, "terminal events: how many commands have how many"
        if calls_at_most is not None:
            calls = self.ends(issued, *CALLS)
            assert {ref: calls[ref] for ref in refs if not 1 <= calls[ref] <= calls_at_most} == {}
        over = {ref: (count, self.grants[ref]) for ref, count in self.effects.items() if count > self.grants[ref]}
        assert over == {}, "side effects above claims"
        await self.wait_settled()

    async def close_books(self, issued: Sequence[IssuedCommand]) -> None:
        """`assert_books`, then `stop_all`."""
        await self.assert_books(issued)
        await self.stop_all()

    async def stop_all(self) -> None:
        """SIGTERM to all that run; each exits with 0 and leaves no process behind."""
        for worker in self.processes:
            if worker.is_running:
                children = children_of(worker.process.pid)
                assert await worker.stop() == 0, worker.text[-3000:]
                await until(lambda pids=children: not any(map(is_there, pids)), "the end of its children")  # type: ignore[misc]


def is_there(pid: int) -> bool:
    """A zombie has ended: whoever inherits it may take a while to look."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@asynccontextmanager
async def scene(
    directory: Path,
    dialect: Dialect = Dialect.PYTHON,
    *,
    plane: Mapping[str, Any] | None = None,
    nats_config: str = "",
) -> AsyncIterator[Scene]:
    """NATS and the control plane; workers are started by `start_process`."""
    async with (
        NatsServer(config=nats_config) as nats,
        DevControlPlane(PlaneSettings(dialect=dialect, **(plane or {})), nats_url=nats.url) as control_plane,
        AsyncExitStack() as stack,
    ):
        yield Scene(nats, control_plane, directory=directory, stack=stack)
