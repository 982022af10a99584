"""The event loop (uvloop if it is installed, else the standard loop), and the cancellation of tasks."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from noetl_worker.process.threads import WORK, WORK_THREADS, Threads

T = TypeVar("T")
_AGAIN_S: Final = 2.0
"""Seconds between two cancellations of a task that has not ended. A task normally ends in less time."""


def wake_first(waiting: deque[asyncio.Future[T]], value: T) -> bool:
    """Wake the first waiter in a queue of futures: set `value` as the result of the first future that is not done.
    Remove this future and all before it from the queue. Return False if all futures were done."""
    while waiting:
        place = waiting.popleft()
        if not place.done():
            place.set_result(value)
            return True
    return False


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end, then cancel all tasks that still run. The event loop's thread pool gives one execution at
    most a quarter of its threads."""
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
    finally:  # the runner alone would cancel the tasks only once
        await end(*(asyncio.all_tasks() - {asyncio.current_task()}))


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks until all have ended. Their results and exceptions are not raised here.

    One cancellation may not be enough. Before Python 3.12, `asyncio.wait_for` loses a cancellation that arrives
    together with the awaited result (cpython #86296). A loop of nats-py that uses `wait_for` would then run for ever.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN_S)


def handle_signals(stop: Callable[[], None], toggle_debug: Callable[[], None]) -> None:
    """Call `stop` at each SIGTERM and SIGINT, and `toggle_debug` at each SIGUSR1. The handlers belong to the running
    event loop. Windows does not support them."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGUSR1, toggle_debug)


async def until_signal(session: Coroutine[Any, Any, T], signals: list[signal.Signals] | None = None) -> T:
    """Return the result of the coroutine `session`. SIGTERM and Ctrl-C cancel only `session`, and `session` ends its
    own tasks in order.

    By default, Ctrl-C would cancel every task of the event loop once. A task of nats-py may lose that single
    cancellation, and the process would then never end (see `end`).

    Args:
        session: coroutine to run.
        signals: list to which each received signal is added. A session may check this list, because a session may lose
            its cancellation too.

    Raises:
        KeyboardInterrupt: Ctrl-C has ended the session. A second Ctrl-C ends the process without waiting.
        asyncio.CancelledError: SIGTERM has ended the session.
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
