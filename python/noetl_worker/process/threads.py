"""Work in a thread, also where the machine has none left to give."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

T = TypeVar("T")


def submitted(submit: Callable[[Callable[[], None]], object], call: Callable[[], T]) -> Future[T]:
    """As `submit`, a method of an executor or loop.

    Raises:
        RuntimeError: no thread is to be had, and the call never runs. After a refused thread an executor alone leaves
            the call in its queue, from where a thread that is there already takes it later on.
    """
    future: Future[T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = call()
        except BaseException as error:  # whatever it is, it is for whoever waits
            future.set_exception(error)
        else:
            future.set_result(result)

    try:
        submit(run)
    except RuntimeError:
        if future.cancel():
            raise
    return future


async def finished_off_loop(call: Callable[[], T]) -> T:
    """`asyncio.to_thread` for what is done with the result of something that has happened, and is not to be lost.

    Without a thread it is done at once, here: the loop stands still for as long as it takes.
    """
    submit = partial(asyncio.get_running_loop().run_in_executor, None)
    within = partial(contextvars.copy_context().run, call)
    try:
        done = submitted(submit, within)
    except RuntimeError:
        return call()
    return await asyncio.wrap_future(done)
