"""Thread pools in which one execution cannot take all threads. If no thread can be started, work on a command's result
runs on the event loop instead."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, Final, TypeVar

T = TypeVar("T")
LARGE: Final = 1 << 16
"""Largest data, in bytes, that is converted on the event loop. Converting that much takes less than a millisecond."""
_is_given_up: Final[contextvars.ContextVar[threading.Event | None]] = contextvars.ContextVar("given_up", default=None)

OWNER: Final[contextvars.ContextVar[Hashable]] = contextvars.ContextVar("noetl_worker_threads_owner", default=None)
"""Execution for which the current task works, whose limit of threads applies. None means the worker itself, which may
use all threads."""
_PART: Final = 4
"""Divisor for the limit of one owner: an owner, such as an execution, gets at most 1/4 of a pool's threads."""
OWN_NAMES: Final = "own_names"
"""Name of the thread pool for DNS look-ups of control planes and NATS servers."""
TOOL_NAMES: Final = "tool_names"
"""Name of the thread pool for DNS look-ups of tools."""
WORK: Final = "work"
"""Name of the thread pool that `asyncio.to_thread` uses, for files, unpacking, conversion and redaction."""
WORK_THREADS: Final = 16


@dataclass(eq=False, slots=True)
class _Call:
    owner: Hashable
    run: Callable[[], object]
    future: Future[Any] = field(default_factory=Future)
    since_s: float = field(default_factory=lambda: time.monotonic())


class Threads(ThreadPoolExecutor):
    """A thread pool for one kind of work. One owner, such as an execution, gets at most a quarter of the threads.

    A running call counts for its owner until the call has ended, even if nobody waits for the result. Most calls cannot
    be stopped.
    """

    def __init__(self, name: str, most: int) -> None:
        super().__init__(most, thread_name_prefix=f"noetl-{name}")
        self._most, self._share = most, max(1, most // _PART)
        self._lock = Lock()
        self._running: set[_Call] = set()
        self._waiting: list[_Call] = []
        self._ended_s = time.monotonic()
        POOLS[name] = self

    def submit(self, call: Callable[..., T], /, *args: Any, **named: Any) -> Future[T]:
        """Submit a call as `ThreadPoolExecutor.submit` does. The call counts for the execution that the context
        variable `OWNER` names, because each execution has a limit of threads."""
        return self.submit_for(OWNER.get(), partial(call, *args, **named))

    def submit_for(self, owner: Hashable, run: Callable[[], T]) -> Future[T]:
        """Submit a call for `owner`. The call starts when a thread is free and `owner` has less than a quarter of the
        threads.

        Raises:
            RuntimeError: no thread can be started, and the call never runs.
        """
        call = _Call(owner, run)
        with self._lock:
            self._waiting.append(call)
        try:
            self._start()
        except RuntimeError:
            if call.future.cancel():
                self._release(call)
                raise
        return call.future

    def _start(self) -> None:
        while (call := self._next()) is not None:
            super().submit(self._work, call)

    def _next(self) -> _Call | None:
        """Return the longest-waiting call whose owner may use one more thread, and count that call as running. Return
        None if no call may start."""
        with self._lock:
            self._waiting = [call for call in self._waiting if not call.future.cancelled()]
            call = next(filter(self._has_share, self._waiting), None) if len(self._running) < self._most else None
            if call is not None:
                self._waiting.remove(call)
                self._running.add(call)
            return call

    def _has_share(self, call: _Call) -> bool:
        return call.owner is None or sum(one.owner == call.owner for one in self._running) < self._share

    def _work(self, call: _Call) -> None:
        try:
            if call.future.set_running_or_notify_cancel():
                _finish(call.future, call.run)
        finally:
            self._release(call)
            with suppress(RuntimeError):  # no other thread can be started: this thread takes the next call
                self._start()

    def _release(self, call: _Call) -> None:
        with self._lock:
            self._running.discard(call)
            self._ended_s = time.monotonic()

    def waiting_s(self) -> float:
        """Return for how many seconds the longest-waiting call has waited. A call waits for a
        free thread, or until another call of the same owner (such as an execution) has ended."""
        with self._lock:
            return self._age_s(call.since_s for call in self._waiting if not call.future.cancelled())

    def stuck_s(self) -> float:
        """Return for how many seconds this pool has been stuck, or 0. In a stuck pool all threads are busy, a call
        waits, and no call ends."""
        with self._lock:
            if len(self._running) < self._most:
                return 0.0
            waiting = filter(self._has_share, self._waiting)
            return self._age_s(max(call.since_s, self._ended_s) for call in waiting if not call.future.cancelled())

    @staticmethod
    def _age_s(times_s: Iterable[float]) -> float:
        now = time.monotonic()
        return now - min(times_s, default=now)


POOLS: Final[dict[str, Threads]] = {}
"""The thread pools of this process by name, for metrics and probes. A new pool replaces an earlier pool of the same
name."""


def _finish(future: Future[T], call: Callable[[], T]) -> None:
    try:
        result = call()
    except BaseException as error:  # any exception belongs to the caller that waits
        future.set_exception(error)
    else:
        future.set_result(result)


def submitted(submit: Callable[[Callable[[], None]], object], call: Callable[[], T]) -> Future[T]:
    """Pass `call` to `submit`, a method of an executor or event loop. Return a future with the result of `call`.

    Raises:
        RuntimeError: no thread can be started, and `call` never runs. An executor would raise too, but would leave
            `call` in its queue, and might run it later.
    """
    future: Future[T] = Future()

    def run() -> None:
        if future.set_running_or_notify_cancel():
            _finish(future, call)

    try:
        submit(run)
    except RuntimeError:
        if future.cancel():
            raise
    return future


async def finished_off_loop(call: Callable[[], T]) -> T:
    """Return the result of `call`, which runs in a thread. Callers use this for work on a command's result, which must
    not be lost.

    If no thread can be started, `call` runs at once on the event loop and blocks the loop meanwhile.
    """
    submit = partial(asyncio.get_running_loop().run_in_executor, None)
    within = partial(contextvars.copy_context().run, call)
    try:
        done = submitted(submit, within)
    except RuntimeError:
        return call()
    return await asyncio.wrap_future(done)


async def off_loop(size: int, work: Callable[[], T]) -> T:
    """Return the result of `work`. `work` runs in a thread if `size`, the bytes to process, is above LARGE, else on the
    event loop.

    Long `work` should call `take_turns` often. Then `work` ends early if nobody waits for its result any more.
    """
    if size <= LARGE:
        return work()
    given_up = threading.Event()
    token = _is_given_up.set(given_up)
    try:
        return await finished_off_loop(work)
    finally:
        given_up.set()
        _is_given_up.reset(token)


def take_turns() -> None:
    """Let other threads run between two pieces of long work.

    Raises:
        TimeoutError: the command that the work is for has ended.
    """
    given_up = _is_given_up.get()
    if given_up is not None:
        time.sleep(0)
        if given_up.is_set():
            raise TimeoutError("the command that this work belongs to has ended")
