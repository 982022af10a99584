"""Work in threads. One execution cannot take all threads of a pool. If no thread can be started, work on a result is
done on the event loop."""

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
"""Most bytes that are converted on the event loop, which takes less than a millisecond."""
_is_given_up: Final[contextvars.ContextVar[threading.Event | None]] = contextvars.ContextVar("given_up", default=None)

OWNER: Final[contextvars.ContextVar[Hashable]] = contextvars.ContextVar("noetl_worker_threads_owner", default=None)
"""The execution for which work is done. None is the worker itself, which may have every thread."""
_PART: Final = 4
"""Divisor of a pool: one owner has at most a quarter of its threads."""
OWN_NAMES: Final = "own_names"
"""The pool for look-ups of the planes' and NATS servers' names."""
TOOL_NAMES: Final = "tool_names"
"""The pool for name look-ups of tools."""
WORK: Final = "work"
"""The pool that `asyncio.to_thread` uses, for files, unpacking, conversion and redaction."""
WORK_THREADS: Final = 16


@dataclass(eq=False, slots=True)
class _Call:
    owner: Hashable
    run: Callable[[], object]
    future: Future[Any] = field(default_factory=Future)
    since_s: float = field(default_factory=lambda: time.monotonic())


class Threads(ThreadPoolExecutor):
    """A pool of threads for one kind of work. One owner has at most a quarter of the threads.

    A call counts for its owner until it has ended, even if nobody waits for it: most calls cannot be stopped.
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
        """Submit a call as `ThreadPoolExecutor.submit` does, for the owner in the context variable `OWNER`."""
        return self.submit_for(OWNER.get(), partial(call, *args, **named))

    def submit_for(self, owner: Hashable, run: Callable[[], T]) -> Future[T]:
        """Submit a call that runs when its owner has a thread left.

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
        """Return the longest-waiting call whose owner has a thread left, and count it as running."""
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
        """Return the seconds for which the longest-waiting call has waited, for a thread or for others of its owner."""
        with self._lock:
            return self._since(call.since_s for call in self._waiting if not call.future.cancelled())

    def stands_s(self) -> float:
        """Return the seconds for which no call has ended, while all threads are taken and a call waits for one of
        them. Otherwise return 0."""
        with self._lock:
            if len(self._running) < self._most:
                return 0.0
            waiting = filter(self._has_share, self._waiting)
            return self._since(max(call.since_s, self._ended_s) for call in waiting if not call.future.cancelled())

    @staticmethod
    def _since(times_s: Iterable[float]) -> float:
        now = time.monotonic()
        return now - min(times_s, default=now)


POOLS: Final[dict[str, Threads]] = {}
"""The pools of this process by name, for metrics and probes. The last pool with a name replaces earlier ones."""


def _finish(future: Future[T], call: Callable[[], T]) -> None:
    try:
        result = call()
    except BaseException as error:  # any exception belongs to the caller that waits
        future.set_exception(error)
    else:
        future.set_result(result)


def submitted(submit: Callable[[Callable[[], None]], object], call: Callable[[], T]) -> Future[T]:
    """Pass `call` to `submit`, a method of an executor or event loop. Return the future of its result.

    Raises:
        RuntimeError: no thread can be started, and the call never runs. An executor alone would raise too, but leave
            the call in its queue, and might run it later.
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
    """Return the result of `call`, which runs in a thread. This is for work on a result that must not be lost.

    If no thread can be started, the call runs at once on the event loop, which does nothing else meanwhile.
    """
    submit = partial(asyncio.get_running_loop().run_in_executor, None)
    within = partial(contextvars.copy_context().run, call)
    try:
        done = submitted(submit, within)
    except RuntimeError:
        return call()
    return await asyncio.wrap_future(done)


async def off_loop(size: int, work: Callable[[], T]) -> T:
    """Return the result of `work`, which runs in a thread if `size` bytes are too many for the event loop.

    `work` should call `take_turns`, which ends it when nobody waits for its result any more.
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
