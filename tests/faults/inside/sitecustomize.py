"""What a test changes inside a worker process: put this directory on its PYTHONPATH. Nothing of the product knows it.

FAULTS_SET    "module:NAME=number ...": constants of the worker, to make a real wait short
FAULTS_BREAK  "module:Class.method": a bug; it raises whenever it is called
FAULTS_CLOCK  a file with seconds: the wall clock is wrong by that much, from now on and whenever it changes
FAULTS_TASKS  a file: SIGUSR2 writes how many asyncio tasks are not done
FAULTS_STEPS  a file: every step of the loop over 200 ms of CPU is written to it (tests/loop_guard.py)
FAULTS_BEAT   a file: a line for each time that the worker's loop did not turn for 20 ms: when, and for how long
FAULTS_DNS    a file: while it is there, no name can be resolved
FAULTS_LOOP   asyncio: the worker finds no uvloop
"""

from __future__ import annotations

import importlib
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def _set_constants(text: str) -> None:
    for part in text.split():
        place, _, value = part.partition("=")
        module, _, name = place.partition(":")
        found = importlib.import_module(module)
        getattr(found, name)  # a constant that was renamed must not pass unseen
        setattr(found, name, float(value))


def _break(text: str) -> None:
    module, _, path = text.partition(":")
    owner, _, method = path.partition(".")
    found = getattr(importlib.import_module(module), owner)
    getattr(found, method)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"{path} is broken on purpose")

    setattr(found, method, broken)


def _set_clock(file: Path) -> None:
    import time

    right, right_ns = time.time, time.time_ns

    def wrong_by_s() -> float:
        try:
            return float(file.read_text(encoding="ascii") or 0)
        except OSError:
            return 0.0

    time.time = lambda: right() + wrong_by_s()
    time.time_ns = lambda: right_ns() + int(wrong_by_s() * 1e9)


def _count_tasks(file: Path) -> None:
    import asyncio
    import gc
    import signal

    def count(*_: object) -> None:
        tasks = [one for one in gc.get_objects() if isinstance(one, asyncio.Task) and not one.done()]
        new = file.with_suffix(".new")
        new.write_text(str(len(tasks)), encoding="ascii")
        new.replace(file)

    signal.signal(signal.SIGUSR2, count)


def _guard_loop(file: Path) -> None:
    import importlib.util
    from pathlib import Path

    place = Path(__file__).parents[2] / "loop_guard.py"
    spec = importlib.util.spec_from_file_location("loop_guard", place)
    assert spec is not None
    assert spec.loader is not None
    guard = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(guard)
    guard.watch_process(file, but="Keepalive.serve")  # its start: modules are loaded, and nothing is in flight


def _beat(file: Path) -> None:
    import asyncio
    import time

    from noetl_worker.worker import worker

    run = worker.Worker.run

    async def beat() -> None:
        with file.open("w", encoding="ascii", buffering=1) as lines:
            while True:
                began = time.monotonic()
                await asyncio.sleep(0.01)
                ended = time.monotonic()
                if ended - began > 0.03:
                    lines.write(f"{ended} {ended - began - 0.01}\n")

    async def with_beat(self: worker.Worker) -> int:
        beating = asyncio.ensure_future(beat())
        try:
            return await run(self)
        finally:
            beating.cancel()

    worker.Worker.run = with_beat  # type: ignore[method-assign]


def _break_names(file: Path) -> None:
    import socket

    resolve = socket.getaddrinfo

    def getaddrinfo(host: object, *rest: object, **more: object) -> object:
        if file.exists() and host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve(host, *rest, **more)  # type: ignore[arg-type]

    socket.getaddrinfo = getaddrinfo  # type: ignore[assignment]


def _change(environment: Mapping[str, str]) -> None:
    from pathlib import Path

    if "FAULTS_BREAK" in environment:
        _break(environment["FAULTS_BREAK"])
    if "FAULTS_CLOCK" in environment:
        _set_clock(Path(environment["FAULTS_CLOCK"]))
    if environment.get("FAULTS_LOOP") == "asyncio":
        sys.modules["uvloop"] = None  # type: ignore[assignment]
    if "FAULTS_DNS" in environment:
        _break_names(Path(environment["FAULTS_DNS"]))
    if "FAULTS_TASKS" in environment:
        _count_tasks(Path(environment["FAULTS_TASKS"]))
    if "FAULTS_STEPS" in environment:
        _guard_loop(Path(environment["FAULTS_STEPS"]))
    if "FAULTS_BEAT" in environment:
        _beat(Path(environment["FAULTS_BEAT"]))
    if "FAULTS_SET" in environment:
        _set_constants(environment["FAULTS_SET"])


# The first of two starts only starts the worker again: what it changed, and loaded for it, would be gone.
is_last_start = (
    sys.platform != "linux"
    or "NOETL_WORKER_SEALED_ENVIRONMENT" in os.environ
    or os.environ.get("NOETL_WORKER_ISOLATION") == "off"
)
if is_last_start and "noetl_worker" in sys.orig_argv:  # `python -m noetl_worker`, not what it starts
    _change(os.environ)
