"""What a machine without descriptors, processes or memory looks like, before a tool has had any effect."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Final, TypeVar

from noetl_worker.errors import ResourceShortage, ToolError
from noetl_worker.process.threads import submitted

T = TypeVar("T")

_NOTHING_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
"""EAGAIN: a refused fork, or the program of a user with too many processes."""
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")
_WORDS: Final = tuple(os.strerror(number) for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM))
"""Not that of EAGAIN: libraries say it of many things."""
_NO_THREAD: Final = "can't start new thread"
"""Python's words for a refused thread: a RuntimeError without a number."""


def is_shortage(error: BaseException | None) -> bool:
    """Whether the machine's want of something is at the bottom of this error."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _NOTHING_LEFT):
            return True
        if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
            return True
        if isinstance(error, ImportError) and is_shortage_text(str(error)):  # a compiled module that was not opened
            return True
        if any(map(is_shortage, getattr(error, "exceptions", ()))):  # of several addresses that were tried
            return True
        error = error.__cause__ or error.__context__
    return False


def is_shortage_text(text: str) -> bool:
    """As `is_shortage`, for an OSError that came as a text, from another process or out of a library in C."""
    found = _ERRNO.search(text)
    if found is not None:
        return int(found.group(1)) in _NOTHING_LEFT
    return any(words in text for words in _WORDS)


def is_out_of_descriptors() -> bool:
    """Whether nothing can be opened at this moment: for a library that fails without saying why."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in _NOTHING_LEFT
    return False


@contextmanager
def before_any_effect(what: str) -> Iterator[None]:
    """Raises ResourceShortage for a shortage inside the block, which must be free of effects until it is left."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError, ToolError) as error:
        raise_shortage(what, error)
        raise


def raise_shortage(what: str, error: Exception) -> None:
    """Raise ResourceShortage where this error is one, which had no effect, and is none yet."""
    if not isinstance(error, ResourceShortage) and is_shortage(error):
        raise ResourceShortage(f"{what}: {str(error) or type(error).__name__}") from error


def started(executor: Executor, call: Callable[[], T]) -> Future[T]:
    """As `executor.submit`.

    Raises:
        ResourceShortage: no thread is to be had, and the call never runs.
    """
    try:
        return submitted(executor.submit, call)
    except RuntimeError as error:
        raise_shortage("no thread to be had", error)
        raise
