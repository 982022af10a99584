"""What a worker is measured in: a nats-server, the stub plane, and worker and yardstick as processes of their own."""

from __future__ import annotations

import asyncio
import compileall
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import noetl_worker
from load import Load
from measured_process import cpu_s
from noetl_worker.authoring.dev.nats_server import NatsServer
from stub_plane import Answers
from yardstick import DURABLE as YARDSTICK_DURABLE

HERE: Final = Path(__file__).parent
INSIDE: Final = HERE / "inside"
PLUG_INS: Final = {
    "clock": "clock:ClockTool",
    "slow_noop": "slow_noop:SlowNoopTool",
    "slow_http": "slow_http:SlowHttpTool",
}
_OWN_VARIABLES: Final = ("NOETL_", "WORKER_", "NATS_")
_KEPT_VARIABLES: Final = ("NOETL_WORKER_ENGINE",)
_START_S: Final = 120.0
"""A busy machine needs half of it."""
_END_S: Final = 20.0
_BEHIND: Final = 10
"""Niceness."""


class Side:
    """A process that works off a stream, and the load for it."""

    def __init__(self, name: str, load: Load, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name: Final = name
        self.load: Final = load
        self.pid: Final = process.pid
        self._process: Final = process
        self._log: Final = log
        self.first_claim_ms = 0.0
        """From the start of the process to its first claim."""
        load.check = self.check

    def check(self) -> None:
        if self._process.returncode is not None:
            raise RuntimeError(f"the {self.name} ended with {self._process.returncode}: {self.log()}")

    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")[-3000:]


class Rig:
    def __init__(self, nats_url: str, stub_url: str, directory: Path, nats_pid: int, stub_pid: int) -> None:
        self.nats_pid: Final = nats_pid
        self.stub_pid: Final = stub_pid
        self.nats_url: Final = nats_url
        self.stub_url: Final = stub_url
        self.directory: Final = directory

    def give_way(self) -> None:
        """From now on what is not measured (NATS, the plane, the load in this process) waits for what is: on few cores
        they would interrupt each other, the more the more workers there are. For the rest of this process's life."""
        for pid in (self.nats_pid, self.stub_pid, os.getpid()):
            os.setpriority(os.PRIO_PROCESS, pid, _BEHIND)

    @asynccontextmanager
    async def worker(
        self,
        slots: int,
        *,
        plug_ins: tuple[str, ...] = ("clock",),
        inside: bool = False,
        name: str = "worker",
        python: str = sys.executable,
        **variables: str,
    ) -> AsyncIterator[Side]:
        """The worker as its users start it, with `variables` added to its environment. `inside` makes it countable;
        a second worker has a name of its own, and may have an installation of its own."""
        load = self._load(name, durable=name)
        environment = {
            "NATS_URL": self.nats_url,
            "NATS_STREAM": load.stream,
            "NATS_SUBJECT": load.subject,
            "NATS_CONSUMER": name,
            "NOETL_SERVER_URL": self.stub_url,
            "NOETL_CONTROL_PLANE": "python",
            "NOETL_WORKER_OUTBOX_DIR": str(self.directory / f"outbox-{name}"),
            "WORKER_MAX_CONCURRENT": str(slots),
            "WORKER_METRICS_BIND": "",
            "LOG_LEVEL": "warning",
            "NOETL_WORKER_ENVIRONMENT_KEPT": "BENCH_*",  # inside/sitecustomize.py reads them before the worker does
            **variables,
        }
        paths = [self._install(plug_ins), str(HERE / "plug_ins"), *([str(INSIDE)] if inside else [])]
        command = [python, "-m", "noetl_worker", "run"]
        async with self._side(name, load, command, environment, paths) as side:
            yield side

    @asynccontextmanager
    async def yardstick(
        self, slots: int, *, inside: bool = False, loop: str = "uvloop", **variables: str
    ) -> AsyncIterator[Side]:
        load = self._load("yardstick", durable=YARDSTICK_DURABLE)
        command = [sys.executable, str(HERE / "yardstick.py"), self.nats_url, self.stub_url, load.stream, load.subject]
        paths = [str(INSIDE)] if inside else []
        async with self._side("yardstick", load, [*command, str(slots), loop], variables, paths) as side:
            yield side

    @asynccontextmanager
    async def peer(self, name: str, slots: int, python: str) -> AsyncIterator[Side]:
        """The yardstick's work in another library: `peers/<name>_worker.py`, whose durable has its name."""
        load = self._load(name, durable=name)
        program = str(HERE / "peers" / f"{name}_worker.py")
        command = [python, program, self.nats_url, self.stub_url, load.stream, load.subject, str(slots)]
        async with self._side(name, load, command, {}, []) as side:
            yield side

    @asynccontextmanager
    async def published(self, slots: int, program: Path) -> AsyncIterator[Side]:
        """The Rust worker that our users run today."""
        load = self._load("published", durable="published")
        environment = {
            "NATS_URL": self.nats_url,
            "NATS_STREAM": load.stream,
            "NATS_CONSUMER": "published",
            "NATS_SUBJECT": load.subject,
            "NATS_FILTER_SUBJECT": load.subject,
            "NOETL_SERVER_URL": self.stub_url,
            "WORKER_ID": "published",
            "WORKER_MAX_CONCURRENT": str(slots),
            "WORKER_METRICS_BIND": "127.0.0.1:0",
            "RUST_LOG": "warn",
        }
        async with self._side("published", load, [str(program)], environment, []) as side:
            yield side

    def _load(self, name: str, *, durable: str) -> Load:
        return Load(self.nats_url, self.stub_url, stream=name, subject=f"bench.{name}", durable=durable)

    @asynccontextmanager
    async def _side(
        self, name: str, load: Load, command: list[str], variables: Mapping[str, str], paths: list[str]
    ) -> AsyncIterator[Side]:
        """Start it; it is there when it has done a first command, which was published before."""
        await load.open()
        log = self.directory / f"{name}.log"
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(_OWN_VARIABLES) or key in _KEPT_VARIABLES
        }
        python_path = os.pathsep.join([*paths, *filter(None, [kept.get("PYTHONPATH")])])
        started = time.monotonic()
        with log.open("w", encoding="utf-8") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                env={**kept, **variables, "PYTHONPATH": python_path},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        side = Side(name, load, process, log)
        try:
            try:
                await load.send(Answers(), 1, timeout_s=_START_S)
            except TimeoutError as error:
                raise RuntimeError(f"the {name} does not work: {error}; it says: {side.log()}") from error
            side.first_claim_ms = ((await load.stats())["first_claim_at"] - started) * 1000
            yield side
        finally:
            await load.close()
            await _end(process)

    def _install(self, plug_ins: tuple[str, ...]) -> str:
        """A distribution that offers these plug-ins; the directory for PYTHONPATH."""
        directory = self.directory / "-".join(("installed", *plug_ins))
        info = directory / "bench_tools-1.0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-tools\nVersion: 1.0\n")
        points = "".join(f"{name} = {PLUG_INS[name]}\n" for name in plug_ins)
        (info / "entry_points.txt").write_text(f"[noetl_worker.tools]\n{points}")
        return str(directory)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _END_S)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def rig(nats_config: str = "") -> AsyncIterator[Rig]:
    compileall.compile_dir(Path(noetl_worker.__file__).parent, quiet=1)  # as pip does: a start compiles nothing
    with tempfile.TemporaryDirectory(prefix="noetl-bench-", ignore_cleanup_errors=True) as directory:
        async with NatsServer(config=nats_config) as server:
            stub = await asyncio.create_subprocess_exec(
                sys.executable, str(HERE / "stub_plane.py"), stdout=asyncio.subprocess.PIPE
            )
            assert stub.stdout is not None
            try:
                port = int(await stub.stdout.readline())
                yield Rig(server.url, f"http://127.0.0.1:{port}", Path(directory), server.pid or 0, stub.pid)
            finally:
                await _end(stub)
