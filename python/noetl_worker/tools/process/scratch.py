"""The directories that commands run in: each has one of its own, and finds it empty.

To make one and to remove it writes to the journal of a file system twice, and may wait for the disk. One that a command
leaves as it was made is kept for the next command, where nothing can be left of the first one to write to it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from noetl_worker.process.threads import finished_off_loop
from noetl_worker.tools.process.confinement import Confinement, missing

_MOST_KEPT: Final = 16
_Look = tuple[int, ...]
"""What a directory looks like from outside: which it is, its rights and owner, its size."""


class Scratch:
    """The directories of one tool; `aclose` removes those that wait for a command.

    Args:
        confinement: of its commands; without one, or where the system cannot find what a command leaves running, no
            directory is kept.
    """

    def __init__(self, confinement: Confinement) -> None:
        self._is_kept = confinement.is_on and not missing()
        self._kept: dict[str, _Look] = {}
        self._remove_kept = weakref.finalize(self, _remove, self._kept)

    @asynccontextmanager
    async def directory(self) -> AsyncIterator[str]:
        """One for a command, which has ended when the block is left: by an exception, and it is removed."""
        path, look = self._taken()
        is_over = False
        try:
            yield path
            is_over = self._is_kept and len(self._kept) < _MOST_KEPT
        finally:
            if is_over and _is_as_made(path, look):
                self._kept[path] = look
            else:
                await asyncio.shield(finished_off_loop(lambda: _remove({path: look})))

    def _taken(self) -> tuple[str, _Look]:
        while self._kept:
            path, look = self._kept.popitem()
            if _is_as_made(path, look):  # and not removed by who cleans TMPDIR
                return path, look
        return _made()

    async def aclose(self) -> None:
        await finished_off_loop(self._remove_kept)


def _made() -> tuple[str, _Look]:
    path = tempfile.mkdtemp(prefix="noetl-")
    return path, _look_of(path)


def _look_of(path: str) -> _Look:
    found = os.lstat(path)
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_size


def _is_as_made(path: str, look: _Look) -> bool:
    """Empty, with no attribute (an access list is one): nothing that the next command could find of this one."""
    try:
        if _look_of(path) != look or os.listxattr(path, follow_symlinks=False):
            return False
        return not os.listdir(path)  # noqa: PTH208 - for every command
    except OSError:
        return False


def _remove(paths: dict[str, _Look]) -> None:
    while paths:
        path, _ = paths.popitem()
        with suppress(RecursionError):  # what is deeper than Python goes stays (shutil.rmtree before 3.13)
            _remove_tree(path)


def _remove_tree(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if _opened(path):  # it is there still: what is below a directory that is closed to its owner stays
        for place, directories, _ in os.walk(path):
            for name in directories:
                _opened(os.path.join(place, name))  # noqa: PTH118
        shutil.rmtree(path, ignore_errors=True)


def _opened(path: str) -> bool:
    """Give the owner of a directory every right to it; False: there is none, as where a link leads to one."""
    try:
        mode = os.lstat(path).st_mode
        if not stat.S_ISDIR(mode):
            return False
        os.chmod(path, stat.S_IMODE(mode) | stat.S_IRWXU)  # noqa: PTH101
    except OSError:
        return False
    return True
