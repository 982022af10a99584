"""Detection of a machine without descriptors, processes or memory, before a tool has had any effect."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Final, TypeVar

from noetl_worker.errors import ResourceShortage, ToolError
from noetl_worker.models.backoff import delay_s
from noetl_worker.process.threads import submitted

T = TypeVar("T")

_NOTHING_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
"""Error numbers that report a shortage of descriptors, memory or processes. EAGAIN: the kernel refused a fork, because
the user has too many processes."""
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")
_WORDS: Final = tuple(os.strerror(number) for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM))
"""Error texts that report a shortage. The text of EAGAIN is missing, because libraries use that text for many other
things."""
_NO_THREAD: Final = "can't start new thread"
"""Text of Python's RuntimeError when the system refuses a new thread. This error has no error number."""
_FIRST_WAIT_S: Final = 0.1
_MOST_WAIT_S: Final = 5.0
_ROOM_S: Final = 30.0
"""Longest time in seconds that a command waits for the end of a shortage. A command that has had effects cannot be
returned to another worker, so the command waits."""


def is_shortage(error: BaseException | None) -> bool:
    """Return True if the cause of this error is a lack of memory, file descriptors, processes or threads."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _NOTHING_LEFT):
            return True
        if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
            return True
        if isinstance(error, ImportError) and is_shortage_text(str(error)):  # a compiled module was not opened
            return True
        if any(map(is_shortage, getattr(error, "exceptions", ()))):  # the errors of several addresses that were tried
            return True
        error = error.__cause__ or error.__context__
    return False


def is_shortage_text(text: str) -> bool:
    """Return True if an error text reports a lack of memory, file descriptors or processes. Such a text comes from
    another process or from a C library, without an exception object."""
    found = _ERRNO.search(text)
    if found is not None:
        return int(found.group(1)) in _NOTHING_LEFT
    return any(words in text for words in _WORDS)


def is_out_of_descriptors() -> bool:
    """Return True if this process can open no file now. The check explains the failure of a library that gives no
    reason."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in _NOTHING_LEFT
    return False


@contextmanager
def before_any_effect(purpose: str) -> Iterator[None]:
    """Raise ResourceShortage instead of any error that a shortage causes inside the block. The worker then returns the
    command for another attempt, so the block must not have changed anything outside the worker.

    Args:
        purpose: what the resources are for, such as `to connect`, for the error's text.
    """
    try:
        yield
    except (OSError, RuntimeError, MemoryError, ToolError) as error:
        raise_shortage(purpose, error)
        raise


def raise_shortage(purpose: str, error: Exception) -> None:
    """Raise ResourceShortage if a shortage caused `error` and `error` is not a ResourceShortage already. The worker
    then returns the command, so the failed call must have had no effect."""
    if not isinstance(error, ResourceShortage) and is_shortage(error):
        raise ResourceShortage(f"the worker lacks resources {purpose}: {str(error) or type(error).__name__}") from error


async def when_there_is_room(run: Callable[[], Awaitable[T]], left_s: Callable[[], float | None]) -> T:
    """Await `run()`. If `run` raises ResourceShortage, wait and call `run` again. This is for a command that has had
    effects: the worker cannot return it.

    Raises:
        ResourceShortage: the shortage lasted 30 s, or `left_s()`, the command's remaining time, is shorter than the
            next wait.
    """
    tries, waited_s = 0, 0.0
    while True:
        try:
            return await run()
        except ResourceShortage:
            tries += 1
            wait_s, most_s = delay_s(tries, _FIRST_WAIT_S, _MOST_WAIT_S, jitter=0.9), left_s()
            waited_s += wait_s
            if waited_s > _ROOM_S or (most_s is not None and wait_s >= most_s):
                raise
        await asyncio.sleep(wait_s)


def started(executor: Executor, call: Callable[[], T]) -> Future[T]:
    """Submit a call to `executor`.

    Raises:
        ResourceShortage: the system refuses a new thread; the call never runs.
    """
    try:
        return submitted(executor.submit, call)
    except RuntimeError as error:
        raise_shortage("to start a thread", error)
        raise
