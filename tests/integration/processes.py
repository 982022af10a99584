"""The worker as a platform engineer runs it: a process with environment variables, its output in a file."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

import httpx
import pytest
from typer.testing import CliRunner

import logging_guard
import long_steps
import noetl_worker
from integration.house import House
from noetl_worker.cli import main
from patience import PATIENCE_S, until

INSIDE = str(Path(__file__).parents[1] / "faults" / "inside")
"""sitecustomize.py: what a test changes inside of a worker process."""
SOURCE = str(Path(noetl_worker.__file__).resolve().parent.parent)
OURS = ("NATS_", "NOETL_", "WORKER_", "LOG_LEVEL", "PORT")
PROBES = {"WORKER_METRICS_BIND": "127.0.0.1:0"}
"""On a port that the system chooses."""
SHORT_LEASES: dict[str, Any] = {
    "claim_lease_s": 1.0,
    "claims_cache_ttl_s": 0.3,
    "heartbeat_stale_s": 1.0,
    "worker_stale_s": 1.0,
    "reaper_interval_s": 0.5,
    "retry_after_s": 1,
}
"""Python plane: a command of a worker that is gone can be claimed after a second and is published again by then."""
ON_DISK: dict[str, Any] = {"stream_storage": "file", "publish_recovery_delay_s": 0.3}
"""A stream that outlives a restart of NATS, and a plane that soon publishes what it could not while it was down."""
SEVEN_METRICS = (
    "noetl_worker_pulls_total",
    "noetl_worker_pull_duration_seconds",
    "noetl_worker_dispatch_duration_seconds",
    "noetl_worker_dispatch_errors_total",
    "noetl_worker_event_emit_duration_seconds",
    "noetl_worker_event_emit_retries_total",
    "noetl_worker_concurrent_dispatches",
)
"""The names of the published Rust worker, for dashboards that are there already."""


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without any setting of the worker but the engine's choice, plus `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    if "NOETL_WORKER_ENGINE" in os.environ:
        kept["NOETL_WORKER_ENGINE"] = os.environ["NOETL_WORKER_ENGINE"]
    path = os.pathsep.join(filter(None, (SOURCE, os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **variables}


def guarded(steps: Path) -> dict[str, str]:
    """Environment of a worker whose loop is guarded: a step that is too long is written to `steps`."""
    path = os.pathsep.join(filter(None, (INSIDE, SOURCE, os.environ.get("PYTHONPATH"))))
    # sitecustomize reads them before the worker has its variables
    return {"PYTHONPATH": path, "NOETL_WORKER_ENVIRONMENT_KEPT": "FAULTS_*", "FAULTS_STEPS": str(steps)}


class WorkerProcess:
    """One `python -m noetl_worker run`. Standard input is /dev/null; all output goes to one file."""

    def __init__(self, directory: Path, name: str, variables: dict[str, str], arguments: Sequence[str] = ()) -> None:
        self.log_path = directory / f"{name}.log"
        self.started_at = time.monotonic()
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "noetl_worker", *arguments],
                env=environment(**variables),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    @property
    def plain(self) -> list[str]:
        """Lines for people: what is not one JSON object of the log."""
        return [line for line in self.text.splitlines() if line.strip() and not line.startswith("{")]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Log records with this `event`."""
        lines = (line for line in self.text.splitlines() if line.startswith("{") and line.endswith("}"))
        records = (json.loads(line) for line in lines if event in line)
        return [record for record in records if record.get("event") == event]

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    async def wait_logged(self, event: str) -> dict[str, Any]:
        """The first record with this `event`. Raises AssertionError with the log when the process ends before it."""

        def there() -> bool:
            found = bool(self.logged(event))
            assert found or self.is_running, f"ended with {self.process.returncode}:\n{self.text[-3000:]}"
            return found

        await until(there, f"log event {event!r}")
        return self.logged(event)[0]

    async def probe(self) -> Probe:
        """Of one that has a WORKER_METRICS_BIND."""
        return Probe(int((await self.wait_logged("probes_listening"))["port"]))

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def exit_code(self) -> int:
        await until(lambda: not self.is_running, "the end of the worker")
        return int(self.process.returncode)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.signal()
        return await self.exit_code()

    def memory_mb(self) -> tuple[float, float]:
        """(resident now, resident at most), in MB of 1,048,576 bytes, from /proc."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        found = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
        return int(found["VmRSS"]) / 1024, int(found["VmHWM"]) / 1024

    def end(self) -> None:
        """Whatever state it is in."""
        if self.is_running:
            self.process.kill()
        self.process.wait()


@asynccontextmanager
async def starting_process(
    home: House, directory: Path, name: str = "worker", **variables: str
) -> AsyncIterator[WorkerProcess]:
    """A worker in front of this house, just started. Killed at the block's end if it is still there.

    From its first pull on no step of its loop should take over 200 ms of its thread's CPU (tests/long_steps.py).
    """
    steps = directory / f"{name}.steps"
    worker = WorkerProcess(directory, name, {**guarded(steps), **home.variables, **variables}, ["run"])
    try:
        yield worker
        long_steps.found_in_a_worker(steps.read_text(encoding="utf-8") if steps.exists() else "")
    finally:
        await asyncio.to_thread(worker.end)


@asynccontextmanager
async def worker_process(
    home: House, directory: Path, name: str = "worker", **variables: str
) -> AsyncIterator[WorkerProcess]:
    """A worker in front of this house, which pulls when the block begins."""
    async with starting_process(home, directory, name, **variables) as worker:
        await worker.wait_logged("pulling")
        yield worker


async def refused_start(directory: Path, **variables: str) -> WorkerProcess:
    """A worker that is expected to end by itself; it has ended when this returns."""
    worker = WorkerProcess(directory, "refused", {"WORKER_METRICS_BIND": "", **variables}, ["run"])
    try:
        await worker.exit_code()
    finally:
        await asyncio.to_thread(worker.end)
    return worker


def last_words(worker: WorkerProcess) -> dict[str, Any]:
    """The `worker_failed` of a process that has ended: its last line, once, and nothing that is no log line."""
    assert worker.plain == [], worker.text
    [record] = worker.logged("worker_failed")
    assert json.loads(worker.text.splitlines()[-1]) == record, worker.text
    assert (record["level"], record["exit_code"]) == ("error", worker.process.returncode)
    assert record["advice"]
    return record


def one_line(worker: WorkerProcess) -> str:
    """The error in the last line of a process that has ended."""
    error = str(last_words(worker)["error"])
    assert error
    assert "\n" not in error
    assert len(error) < 600, error
    return error


@dataclass(frozen=True)
class Probe:
    """The worker's HTTP endpoint."""

    port: int

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            return await client.get(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE_S)

    async def is_ready(self) -> bool:
        try:
            return (await self.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def why_not_ready(self) -> str | None:
        """The reason, or None while it is ready."""
        answer = await self.get("/readyz")
        return None if answer.status_code == 200 else str(answer.json()["reason"])

    async def metrics(self) -> str:
        return (await self.get("/metrics")).text


class Gate:
    """A shell command that waits until the gate is opened, in whichever process it runs.

    It reads a line from a pipe: one that looked for a file again and again would start a process each time. When the
    gate is gone, those that wait read its end; a command that begins after that waits for ever, so keep it till then.
    """

    def __init__(self, directory: Path, name: str = "gate") -> None:
        self.path, self.runs_file = directory / name, directory / f"{name}.runs"
        os.mkfifo(self.path)
        self._opener = os.open(self.path, os.O_RDWR)
        weakref.finalize(self, os.close, self._opener)

    def command(self, before: str = "") -> str:
        return f"{before} echo $$ >> {self.runs_file}; read line < {self.path}; echo through"

    @property
    def runs(self) -> int:
        """How often it was started."""
        return len(self.runs_file.read_text().split()) if self.runs_file.exists() else 0

    def open(self) -> None:
        """For all that wait, and those that come."""
        os.write(self._opener, b"\n" * 1000)


@dataclass(frozen=True)
class Ended:
    """A command line that has ended."""

    code: int
    out: str
    err: str

    @property
    def err_lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.strip()]


def program(words: Sequence[str], variables: Mapping[str, str], directory: Path | None = None) -> Ended:
    """Run it to its end with this environment, and nothing on its standard input."""
    done = subprocess.run(
        words,
        env=variables,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def command_line(directory: Path, *arguments: str, **variables: str) -> Ended:
    """Run `python -m noetl_worker ARGUMENTS` to its end."""
    words = [sys.executable, "-m", "noetl_worker", *arguments]
    return program(words, environment(**{"COLUMNS": "100", **variables}), directory)


def given(**variables: str | None) -> dict[str, str | None]:
    """What a command in this process finds changed in its environment."""
    ours: dict[str, str | None] = {name: None for name in os.environ if name.startswith(OURS)}
    return {**ours, "NOETL_WORKER_ENGINE": os.environ.get("NOETL_WORKER_ENGINE"), "COLUMNS": "100", **variables}


class CommandStream(io.TextIOBase):
    """The standard error of a command. Lines of threads that ran before it, such as a worker's, go elsewhere."""

    def __init__(self, own: TextIO, others: TextIO) -> None:
        self._earlier = {*threading.enumerate()} - {threading.current_thread()}
        self._own = own
        self._others = others

    def write(self, text: str) -> int:
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._own.fileno()

    @property
    def _stream(self) -> TextIO:
        return self._others if threading.current_thread() in self._earlier else self._own


def typed(*arguments: str, **variables: str | None) -> Ended:
    """Run it in this process: what a command says and does, where neither its start nor its signals are the matter."""
    others = sys.stderr
    words = mock.patch.object(sys, "argv", ["noetl-worker", *arguments])
    with logging_guard.kept(), words, CliRunner().isolation(env=given(**variables)) as (out, err, _):
        sys.stderr = CommandStream(sys.stderr, others)
        with pytest.raises(SystemExit) as ended:
            main()
        sys.stderr.flush()
        return Ended(int(ended.value.code or 0), out.getvalue().decode(), err.getvalue().decode())
