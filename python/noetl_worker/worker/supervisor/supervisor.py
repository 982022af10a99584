"""The CLI command `run --processes N`: one process that starts N workers, restarts dead workers, and stops them all.

Each worker is a separate `noetl-worker run`, with its own claim id, connections and outbox file. Each is also in a
session of its own, so that Ctrl-C in a terminal reaches the supervisor only. The supervisor passes the
signal on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from noetl_worker.models import backoff
from noetl_worker.observability.last_words import log_end
from noetl_worker.process import event_loop, handed_down, sealed_environment
from noetl_worker.settings.settings import Settings

_SETTINGS_WRONG: Final = 2
_CANNOT_START: Final = 3
_CUT_OFF: Final = 4
_BROKEN: Final = 6
_AT_ONCE: Final = 130
_FIRST_DELAY_S: Final = 0.5
_MOST_DELAY_S: Final = 30.0
_LASTED_S: Final = 60.0
"""Lifetime in seconds of a process after which a death no longer counts as repeated: deaths in a row are counted from 1
again."""
_KEEPS_DYING: Final = 3
_KILLED: Final = (
    "see dmesg, or the last state of the container: the worker was killed (SIGKILL), mostly for lack of memory. Give "
    "it more memory, or fewer slots or processes"
)
"""Advice for a worker that was killed and could not log its end."""
_DIED: Final = "see the worker's own log lines above"
log = structlog.get_logger("noetl_worker.worker.supervisor")


@dataclass
class WorkerProcess:
    """A worker and its present process. A dead process is replaced by a new one."""

    number: int
    probes: socket.socket | None
    """Listening socket for the worker's probes, or None if probes are off. The supervisor keeps the socket, so each new
    process of this worker has the same port."""
    running: asyncio.subprocess.Process | None = None
    """The worker's present process, or None while the worker has no process."""
    answered: asyncio.subprocess.Process | None = None
    """The process of this worker that last answered a probe, or None. If this is not the present process (`running`),
    the present process may still be starting."""
    answered_at: float = 0.0
    """Monotonic time of the worker's last answer to a probe."""
    starts: int = 0
    deaths: int = 0
    """Number of deaths of the worker's processes in a row. A death after _LASTED_S seconds counts as the first."""

    @property
    def port(self) -> int | None:
        return self.probes.getsockname()[1] if self.probes is not None else None


def start_delay_s(deaths: int, draw: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait before a worker is restarted after this number of deaths in a row."""
    return backoff.delay_s(deaths, _FIRST_DELAY_S, _MOST_DELAY_S, jitter=0.5, draw=draw)


class Supervisor:
    """Starts several worker processes, and restarts those that die. `run` returns their common exit code.

    Args:
        variables: the environment that all workers share.
        worker: the command line of a worker.
        delay_s: returns the delay before a restart for the number of deaths in a row.
    """

    def __init__(
        self,
        settings: Settings,
        variables: Mapping[str, str],
        *,
        worker: Sequence[str] = (sys.executable, "-m", "noetl_worker", "run"),
        clock: Callable[[], float] = lambda: time.monotonic(),  # a lambda: a simulation replaces the clock
        delay_s: Callable[[int], float] = start_delay_s,
    ) -> None:
        self._settings = settings
        self._worker, self._clock, self._delay_s = worker, clock, delay_s
        self._given = variables
        self.workers: Final = [
            WorkerProcess(number, _probe_socket() if settings.metrics_bind else None)
            for number in range(1, settings.processes + 1)
        ]
        self._stops = 0
        self._stopping = asyncio.Event()
        self._refused: int | None = None
        """The exit code of a worker that cannot start with these settings. None while no worker has failed in this
        way."""

    def request_stop(self) -> None:
        """Pass a stop signal on to the workers: the first drains them, the second cancels commands, the third ends the
        workers at once."""
        self._stops += 1
        self._stopping.set()
        log.info("stop_requested", signals=self._stops, processes=self.running)
        for worker in self.workers:
            self._signal(worker)

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def toggle_debug(self) -> None:
        """Toggle the workers' debug logging. The supervisor itself logs little."""
        for worker in self.workers:
            self._signal(worker, signal.SIGUSR1)

    async def run(self) -> int:
        """Keep the workers running until a stop, or until a worker cannot start with these settings. Return the common
        exit code."""
        log.info("supervisor_started", processes=len(self.workers), slots=self._settings.max_concurrent)
        codes = await asyncio.gather(*(self._restart_until_stopped(worker) for worker in self.workers))
        self.close()
        code = self._refused if self._refused is not None else _worst(codes)
        log.info("stopped", codes=codes, exit_code=code)
        if code not in (0, _CUT_OFF):
            log_end(code, "processes")
        return code

    def close(self) -> None:
        for worker in self.workers:
            if worker.probes is not None:
                worker.probes.close()

    async def _restart_until_stopped(self, worker: WorkerProcess) -> int:
        """Run a worker, and restart it when it dies. Return the exit code of its last process."""
        while not self._stopping.is_set():
            started_at = self._clock()
            code = await self._life(worker)
            if self._stopping.is_set():
                return code
            if code in (_SETTINGS_WRONG, _CANNOT_START) and worker.starts == 1:
                self._refused = code
                self.request_stop()
                return code
            worker.deaths = 1 if self._clock() - started_at >= _LASTED_S else worker.deaths + 1
            delay_s = self._delay_s(worker.deaths)
            self._log_death(worker, code, delay_s)
            try:
                await asyncio.wait_for(self._stopping.wait(), delay_s)
            except asyncio.TimeoutError:
                continue
        return 0  # no process is left to drain

    async def _life(self, worker: WorkerProcess) -> int:
        """Start a process of the worker and wait for its end. Return its exit code."""
        variables = self.variables(worker)
        try:
            worker.running, channel = await self._start(worker, variables)
        except OSError as error:  # no process, memory or descriptor is free now
            advice = "look at `error`, and free memory, descriptors or processes of the machine; it is tried again"
            log.error("process_not_started", process=worker.number, error=str(error), advice=advice)
            return os.EX_OSERR
        with channel:
            giving = asyncio.ensure_future(_give(channel, variables))
            for _ in range(self._stops):  # signals that came during the start
                self._signal(worker)
            code = await worker.running.wait()
            worker.running = None
            await event_loop.end(giving)
        return code

    def _log_death(self, worker: WorkerProcess, code: int, delay_s: float) -> None:
        is_killed = code == -signal.SIGKILL
        died: dict[str, object] = {
            "process": worker.number,
            "exit_code": code,
            "deaths": worker.deaths,
            "starts_again_s": round(delay_s, 1),
        }
        if worker.deaths < _KEEPS_DYING:
            log.warning("process_died", **died, advice=_KILLED if is_killed else _DIED)
            return
        advice = f"{_KILLED if is_killed else _DIED}; the worker is restarted, at most every {_MOST_DELAY_S:g} s"
        log.error("process_keeps_dying", **died, advice=advice)

    def variables(self, worker: WorkerProcess) -> dict[str, str]:
        variables = {**self._given, "NOETL_WORKER_PROCESSES": "1"}
        variables[handed_down.PARENT] = str(os.getpid())
        variables["PYTHONSAFEPATH"] = "1"  # workers must not import a json.py from the working directory (Python 3.11)
        if self._settings.worker_id:
            variables["WORKER_ID"] = f"{self._settings.worker_id}-{worker.number}"
        variables["WORKER_METRICS_BIND"] = ""
        if worker.probes is not None:
            variables["WORKER_METRICS_BIND"] = f"127.0.0.1:{worker.port}"
            variables[handed_down.SOCKET] = str(worker.probes.fileno())
            variables[handed_down.PORTS] = ",".join(map(str, self._probe_ports()))
        return variables

    def _probe_ports(self) -> list[int]:
        """Return the ports of the probes of the supervisor and its workers. Tools may not connect to these."""
        own = int(self._settings.metrics_bind.rpartition(":")[2])
        return [own, *(worker.port for worker in self.workers if worker.port is not None)]

    async def _start(
        self, worker: WorkerProcess, variables: Mapping[str, str]
    ) -> tuple[asyncio.subprocess.Process, socket.socket]:
        """Start a process of the worker. Return the process and a socket. On this socket the process asks for the
        environment variables that its environment block lacks."""
        worker.starts += 1
        block, descriptors = variables, [] if worker.probes is None else [worker.probes.fileno()]
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        if self._settings.isolation != "off" and sys.platform == "linux":
            block = {**sealed_environment.visible(variables), sealed_environment.VARIABLE: str(theirs.fileno())}
            descriptors.append(theirs.fileno())
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._worker,
                    env=block,
                    pass_fds=tuple(descriptors),
                    stdin=asyncio.subprocess.DEVNULL,
                    start_new_session=True,
                )
            except BaseException:
                mine.close()
                raise
        return process, mine

    @staticmethod
    def _signal(worker: WorkerProcess, number: signal.Signals = signal.SIGTERM) -> None:
        if worker.running is None or worker.running.returncode is not None:
            return
        # Process.send_signal first polls the process, which before 3.13 hides its exit code from asyncio (255,
        # cpython#87744).
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.running.pid, number)

    @property
    def running(self) -> int:
        """Number of running workers."""
        return sum(worker.running is not None for worker in self.workers)


async def _give(channel: socket.socket, variables: Mapping[str, str]) -> None:
    """Send a worker its environment variables when the worker asks for them. A worker first hides its memory, then
    asks. A worker may end without asking."""
    loop = asyncio.get_running_loop()
    with channel, contextlib.suppress(ConnectionError):
        if await loop.sock_recv(channel, 1):
            await loop.sock_sendall(channel, sealed_environment.pack_variables(variables))


def _probe_socket() -> socket.socket:
    made = socket.create_server(("127.0.0.1", 0))
    made.set_inheritable(True)
    return made


def _worst(codes: list[int]) -> int:
    """Return the common exit code of the workers. The code is 130 (ended at once) if any worker has it, else 4
    (commands interrupted) if any worker has it. Any other code than 0 gives 6 (broken).

    A worker that SIGTERM killed counts as 0: it was still starting and had no command, since it had no handler yet.
    """
    known = [0 if code == -signal.SIGTERM else code for code in codes]
    for code in (_AT_ONCE, _CUT_OFF):
        if code in known:
            return code
    return 0 if not any(known) else _BROKEN
