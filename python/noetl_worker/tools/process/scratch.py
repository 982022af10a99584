"""Working directories of commands: each command gets an empty directory of its own.

Creating and removing a directory writes to the file system's journal twice, and may wait for the disk. So an unchanged
directory is reused for the next command, if no process of the first command still runs.
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

_MOST_REUSABLE: Final = 16
_Look = tuple[int, ...]
"""Device, inode, mode, owner, group and size of a directory. If one value has changed, a command has changed the
directory."""


class Scratch:
    """The working directories of one tool's commands. `aclose` removes the directories kept for later commands.

    Args:
        confinement: confinement of the tool's commands. A directory is reused only if commands are confined, and the
            system can find processes that a command leaves running.
    """

    def __init__(self, confinement: Confinement) -> None:
        self._can_reuse = confinement.is_on and not missing()
        self._reusable: dict[str, _Look] = {}
        self._remove_reusable = weakref.finalize(self, _remove, self._reusable)

    @asynccontextmanager
    async def directory(self) -> AsyncIterator[str]:
        """Provide an empty directory for one command. The command must have ended when the block ends.

        At the end of the block, an unchanged directory may be kept for a later command. Any other directory is removed.
        If the block raises, the directory is removed in any case.
        """
        path, look = self._taken()
        is_over = False
        try:
            yield path
            is_over = self._can_reuse and len(self._reusable) < _MOST_REUSABLE
        finally:
            if is_over and _is_as_made(path, look):
                self._reusable[path] = look
            else:
                await asyncio.shield(finished_off_loop(lambda: _remove({path: look})))

    def _taken(self) -> tuple[str, _Look]:
        while self._reusable:
            path, look = self._reusable.popitem()
            if _is_as_made(path, look):  # a cleaner of TMPDIR may have removed it
                return path, look
        path = tempfile.mkdtemp(prefix="noetl-")
        return path, _read_look(path)

    async def aclose(self) -> None:
        await finished_off_loop(self._remove_reusable)


def _read_look(path: str) -> _Look:
    found = os.lstat(path)
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_size


def _is_as_made(path: str, look: _Look) -> bool:
    """Return True if a later command can reuse the scratch directory `path`, because the directory is as it was when
    new. It must be empty, without an extended attribute such as an access list. It must be the same directory, with the
    owner, mode and size of its creation (`look`)."""
    try:
        if _read_look(path) != look or os.listxattr(path, follow_symlinks=False):
            return False
        return not os.listdir(path)  # noqa: PTH208 - for every command
    except OSError:
        return False


def _remove(paths: dict[str, _Look]) -> None:
    while paths:
        path, _ = paths.popitem()
        with suppress(RecursionError):  # directories nested too deep for Python stay (shutil.rmtree before 3.13)
            _remove_tree(path)


def _remove_tree(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if _opened(path):  # the path still exists: a directory below is closed to its owner
        for place, directories, _ in os.walk(path):
            for name in directories:
                _opened(os.path.join(place, name))  # noqa: PTH118
        shutil.rmtree(path, ignore_errors=True)


def _opened(path: str) -> bool:
    """Give the owner of a directory all rights to the directory, so that it can be removed. Return False if the path is
    not a directory, such as a link."""
    try:
        mode = os.lstat(path).st_mode
        if not stat.S_ISDIR(mode):
            return False
        os.chmod(path, stat.S_IMODE(mode) | stat.S_IRWXU)  # noqa: PTH101
    except OSError:
        return False
    return True
