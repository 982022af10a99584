"""The event loop (uvloop if it is installed, else the standard one), and the cancellation of tasks."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from noetl_worker.process.threads import WORK, WORK_THREADS, Threads

T = TypeVar("T")
_AGAIN_S: Final = 2.0
"""Seconds until a task is cancelled again. This is longer than a task needs to clean up."""


def give(waiting: deque[asyncio.Future[T]], value: T) -> bool:
    """Give `value` to the first future that still waits. Return False if none does."""
    while waiting:
        place = waiting.popleft()
        if not place.done():
            place.set_result(value)
            return True
    return False


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end, then end the tasks that it left. One owner has at most a quarter of the loop's threads."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_run_and_end(main))
    result: T = uvloop.run(_run_and_end(main))
    return result


async def _run_and_end(main: Coroutine[Any, Any, T]) -> T:
    asyncio.get_running_loop().set_default_executor(Threads(WORK, WORK_THREADS))
    try:
        return await main
    finally:  # the runner would cancel them once
        await end(*(asyncio.all_tasks() - {asyncio.current_task()}))


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks until they have ended. Their results and exceptions stay in them.

    One cancellation is not enough: before Python 3.12 asyncio.wait_for, which nats-py uses, swallows a cancellation
    that arrives together with the awaited result (cpython #86296), and a loop in nats-py would go on for ever.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN_S)


async def until_signal(session: Coroutine[Any, Any, T], signals: list[signal.Signals] | None = None) -> T:
    """Run a session until SIGTERM or Ctrl-C cancels it; it then ends the worker, nats-server and the rest in order.

    By itself Ctrl-C cancels every task of the loop once. One in nats-py that has just got an answer goes on, and would
    be waited for without end (`end`).

    Args:
        signals: what came is added to it: a session with more to do looks at it, for it may miss being cancelled too.

    Raises:
        KeyboardInterrupt, asyncio.CancelledError: it was asked to end so. A second Ctrl-C does not wait for that.
    """
    running, loop = asyncio.ensure_future(session), asyncio.get_running_loop()
    came: list[signal.Signals] = [] if signals is None else signals

    def stop(number: signal.Signals) -> None:
        came.append(number)
        loop.remove_signal_handler(number)
        running.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        return await running
    except asyncio.CancelledError:
        if signal.SIGINT in came:
            raise KeyboardInterrupt from None
        raise
