"""Virtual time: a clock that leaps to the next timer, and an event loop on it where every run is the same run.

Product code runs unchanged: `time.monotonic`, `time.time` and the sources of chance are those of the simulation
while it runs. Each thread of a simulated process is a `Strand`, carried by a context variable: a strand can be frozen
(SIGSTOP, a blocked loop), and each process has a wall clock of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import os
import random
import secrets
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

from noetl_worker.pipeline.outbox import file

EPOCH_S: Final = 1_790_000_000.0
"""Wall time at which every run begins, far above the epoch of the event ids."""
START_S: Final = 1_000.0


@dataclass(eq=False)
class Process:
    """One simulated worker process: its clocks, its threads, and whether it still lives."""

    name: str
    loop: VirtualLoop
    skew_s: float = 0.0
    """How far its wall clock is from the true one."""
    is_dead: bool = False
    tasks: dict[asyncio.Task[Any], None] = field(default_factory=dict)
    """Not done yet, in the order in which they were made."""

    def __post_init__(self) -> None:
        self.main = Strand(self, "main")
        self.keepalive = Strand(self, "keepalive")


class Strand:
    """One thread of a process."""

    def __init__(self, process: Process, name: str) -> None:
        self.process = process
        self.name = name
        self.is_frozen = False
        self.backlog: list[asyncio.Handle] = []

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run it as a task of this thread."""
        context = contextvars.copy_context()
        context.run(STRAND.set, self)
        return context.run(self.process.loop.create_task, coroutine)


STRAND: Final[contextvars.ContextVar[Strand | None]] = contextvars.ContextVar("strand", default=None)


class Clock:
    """Seconds since the start of the run; only the loop moves it."""

    def __init__(self) -> None:
        self.now = START_S

    @property
    def elapsed_s(self) -> float:
        return self.now - START_S

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        """The wall time of whoever asks: a process may have a clock that is wrong."""
        strand = STRAND.get()
        skew_s = strand.process.skew_s if strand is not None else 0.0
        return EPOCH_S + self.now - START_S + skew_s

    def true_wall(self) -> float:
        return EPOCH_S + self.now - START_S


class _Leap:
    """Stands where a loop has its selector: instead of waiting, time passes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("nothing is scheduled and nothing is ready: the simulation would wait for ever")
        self._clock.now += timeout
        return []

    def close(self) -> None:
        pass


class _Handle(asyncio.Handle):
    """Waits for its strand to go on, where that is frozen."""

    _context: contextvars.Context

    def _run(self) -> None:
        strand = self._context.get(STRAND)
        if strand is not None and strand.is_frozen:
            strand.backlog.append(self)
        else:
            super()._run()


class _TimerHandle(_Handle, asyncio.TimerHandle):
    pass


class _Numbered:
    """Hashes by number: the product cancels and waits for sets of tasks, and their order must not be an address's."""

    def __init__(self, *given: Any, serial: int, **options: Any) -> None:
        self._serial = serial
        super().__init__(*given, **options)

    def __hash__(self) -> int:
        return self._serial


class _Task(_Numbered, asyncio.Task[Any]):
    pass


class _Future(_Numbered, asyncio.Future[Any]):
    pass


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop without sockets and threads, on a `Clock`."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._selector = _Leap(clock)
        self._serials = itertools.count(1)
        self.errors: list[str] = []
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._note_error)

    def time(self) -> float:
        return self._clock.now

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(serial=next(self._serials), loop=self)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, handle)  # type: ignore[attr-defined]
        handle._scheduled = True  # type: ignore[attr-defined]
        return handle

    def outside(self, delay_s: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """Call it later as the world: networks and servers do not stop when a process does."""
        handle: asyncio.TimerHandle = self.call_at(
            self.time() + delay_s, callback, *args, context=contextvars.Context()
        )
        return handle

    def thaw(self, strand: Strand) -> None:
        """Go on with a frozen thread: what became due meanwhile runs now, in order."""
        strand.is_frozen = False
        self._ready.extend(strand.backlog)  # type: ignore[attr-defined]
        strand.backlog.clear()

    def run_in_executor(self, *_: Any) -> Any:  # type: ignore[override]
        raise AssertionError("product code went to a thread: the simulation cannot follow it there")

    def _call_soon(self, callback: Callable[..., Any], args: Any, context: Any) -> Any:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def _make_task(self, _: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task = _Task(coroutine, serial=next(self._serials), loop=self, **options)
        strand = STRAND.get()
        if strand is not None:
            strand.process.tasks[task] = None
            task.add_done_callback(lambda done: strand.process.tasks.pop(done, None), context=contextvars.Context())
        return task

    def _note_error(self, _: asyncio.AbstractEventLoop, what: dict[str, Any]) -> None:
        self.errors.append(f"{what.get('message')}: {what.get('exception')!r}")

    def _process_events(self, _: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


@contextmanager
def in_world(clock: Clock, seed: str) -> Iterator[None]:
    """Inside, the process's clocks and its chance are the simulation's."""
    chance = random.Random(f"{seed}:product")
    before = random.getstate()
    random.seed(f"{seed}:random")
    uuids = SimpleNamespace(uuid4=lambda: uuid.UUID(bytes=chance.randbytes(16), version=4))
    patches: dict[tuple[Any, str], Any] = {
        (time, "monotonic"): clock.monotonic,
        (time, "time"): clock.wall,
        (time, "time_ns"): lambda: int(clock.wall() * 1_000_000) * 1_000,
        (secrets, "token_hex"): lambda size=8: chance.randbytes(size).hex(),
        (file, "uuid"): uuids,  # not of every module: a library draws one when a model is first read
        (os, "getpid"): lambda: 1,
    }
    try:
        with ExitStack() as inside:
            for (module, name), stand_in in patches.items():
                inside.enter_context(mock.patch.object(module, name, stand_in))
            yield
    finally:
        random.setstate(before)
