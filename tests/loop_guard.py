"""Finds the steps of an event loop that take long: in a worker all else would have waited.

What becomes of them is in tests/long_steps.py.

Measured is the CPU time of the loop's thread (`time.thread_time`), not the time on the wall: other processes do not
count, nor does a garbage collection, which the step does not choose and which grows with the size of the suite. Up to
10 ms of a step may be missing.
Standard loops are measured at `Handle._run`, through which everything goes; on uvloop, whose handles are compiled,
every callback that is given to the loop is wrapped, the steps of tasks too, and what the protocols of its connections
and servers do with what they are told. It cannot see there: a protocol that takes a transport over later
(`set_protocol`), one with slots, pipes and child processes. What the development plane does in steps of its own is not
looked at: it stores megabytes for a test, and no worker waits for it.

The workers of the fault suite are processes: each has a guard of its own (`watch_process`), which writes the long steps
to a file that their test reads at its end.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any, Final
from weakref import WeakMethod

LIMIT_S: Final = 0.2
_RECORD: Final = os.environ.get("LOOP_GUARD_RECORD")
"""A file that every step over a quarter of the limit is written to: how far the suite is from it."""
_TOLD: Final = (
    *("connection_made", "data_received", "buffer_updated", "eof_received", "connection_lost"),
    *("datagram_received", "error_received"),
)
"""What a loop tells a protocol."""
_CONNECTS: Final = (
    *("create_connection", "create_server", "create_unix_connection", "create_unix_server"),
    *("connect_accepted_socket", "create_datagram_endpoint"),
)
"""How a loop is given a protocol."""
_LOOK_S: Final = 0.01
"""So old may be what a step is measured from: to ask for the CPU time costs more than most steps do."""


class _Thread(threading.local):
    """Of one thread: when its CPU time was last looked at, that time, and what of it collections of garbage took."""

    look: tuple[float, float, float] = (float("-inf"), 0.0, 0.0)
    collected_s = 0.0
    collecting_since_s: float | None = None


_thread = _Thread()


class _Steps:
    """The long steps of the test that runs."""

    test = ""
    seen: list[str]
    file: Path | None = None
    but: str | None = None

    def __init__(self) -> None:
        self.seen = []

    def begin(self, test: str) -> None:
        self.test, self.seen = test, []

    def take(self, callback: Any, spent_s: float) -> None:
        if self.but is not None and self.but in _named(callback):
            return
        said = f"{spent_s * 1000:.0f} ms of CPU in one step: {_named(callback)}"
        if spent_s > LIMIT_S:
            self.seen.append(said)
            if self.file is not None:
                with self.file.open("a", encoding="utf-8") as file:
                    file.write(f"{self.seen[-1]}\n")
        if _RECORD:
            with open(_RECORD, "a", encoding="utf-8") as file:  # noqa: PTH123 - a step of some loop
                file.write(f"{self.test}: {said}\n")


_steps = _Steps()


def _named(callback: Any) -> str:
    while isinstance(callback, partial):
        callback = callback.func
    owner = getattr(callback, "__self__", None)
    if not isinstance(owner, asyncio.Task):
        return repr(callback)
    coroutines = [owner.get_coro()]
    while getattr(coroutines[-1], "cr_await", None) is not None:
        coroutines.append(coroutines[-1].cr_await)  # type: ignore[union-attr]
    return " > ".join(getattr(one, "__qualname__", repr(one)) for one in coroutines)


def _note_collection(phase: str, _: dict[str, int]) -> None:
    if phase == "start":
        _thread.collecting_since_s = time.thread_time()
    elif _thread.collecting_since_s is not None:
        _thread.collected_s += time.thread_time() - _thread.collecting_since_s


def _measured(callback: Callable[..., Any], told: Any, *arguments: Any) -> Any:
    began_s, look = time.perf_counter(), _thread.look
    if began_s - look[0] > _LOOK_S:
        look = _thread.look = (began_s, time.thread_time(), _thread.collected_s)
    try:
        return callback(*arguments)
    finally:
        if time.perf_counter() - began_s > LIMIT_S / 4:  # else it cannot have had so much of a core
            looked_s, cpu_s, collected_s = look
            spent_s = time.thread_time() - cpu_s - (_thread.collected_s - collected_s) - (began_s - looked_s)
            if spent_s > LIMIT_S / 4:
                _steps.take(told, spent_s)


def _guard_standard_loops() -> None:
    run_one = asyncio.Handle._run

    @wraps(run_one)
    def run(self: asyncio.Handle) -> None:
        _measured(run_one, self._callback, self)

    asyncio.Handle._run = run  # type: ignore[method-assign]


def _watched(factory: Callable[[], Any]) -> Callable[[], Any]:
    """The protocols that it makes are measured in what they do when they are told something."""

    def make() -> Any:
        protocol = factory()
        for name in _TOLD:
            method = getattr(protocol, name, None)
            if method is not None:
                with suppress(AttributeError, TypeError):  # slots
                    setattr(protocol, name, partial(_measured_method, WeakMethod(method)))
        return protocol

    return make


def _measured_method(method: WeakMethod[Callable[..., Any]], *arguments: Any) -> Any:
    """Of a protocol that has to be freed as it is without the guard."""
    bound = method()
    assert bound is not None
    return _measured(bound, bound, *arguments)


def _with_watched_protocols(connect: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(connect)
    async def connect_watched(self: Any, protocol_factory: Callable[[], Any], *arguments: Any, **named: Any) -> Any:
        return await connect(self, _watched(protocol_factory), *arguments, **named)

    return connect_watched


def _guard_uvloop() -> None:
    try:
        import uvloop
    except ImportError:
        return

    class Guarded(uvloop.Loop):
        def call_soon(self, callback: Any, *arguments: Any, **named: Any) -> Any:
            return super().call_soon(_measured, callback, callback, *arguments, **named)

        def call_soon_threadsafe(self, callback: Any, *arguments: Any, **named: Any) -> Any:
            return super().call_soon_threadsafe(_measured, callback, callback, *arguments, **named)

        def call_later(self, delay: float, callback: Any, *arguments: Any, **named: Any) -> Any:
            return super().call_later(delay, _measured, callback, callback, *arguments, **named)

        def call_at(self, when: float, callback: Any, *arguments: Any, **named: Any) -> Any:
            return super().call_at(when, _measured, callback, callback, *arguments, **named)

        def add_reader(self, fd: Any, callback: Any, *arguments: Any) -> Any:
            return super().add_reader(fd, _measured, callback, callback, *arguments)

        def add_writer(self, fd: Any, callback: Any, *arguments: Any) -> Any:
            return super().add_writer(fd, _measured, callback, callback, *arguments)

    for name in _CONNECTS:
        setattr(Guarded, name, _with_watched_protocols(getattr(uvloop.Loop, name)))
    uvloop.Loop = Guarded  # type: ignore[misc]  # what uvloop.new_event_loop makes


def install(*, but: str | None = None) -> None:
    """Once, before the first test. `but`: the name of what may take long steps (a class, a coroutine)."""
    _steps.but = but
    gc.callbacks.append(_note_collection)
    _guard_standard_loops()
    _guard_uvloop()


def watch_process(file: Path, *, but: str | None = None) -> None:
    """In a process of its own, before it has a loop: long steps are written to `file`, a line each.

    `but`: the name of a coroutine whose steps may be long.
    """
    _steps.file = file
    install(but=but)


def begin(test: str) -> None:
    """From here on long steps are of this test."""
    _steps.begin(test)


def seen() -> list[str]:
    """The long steps since `begin`."""
    return _steps.seen
