"""Rules for the files of the worker's machine that a playbook may name: artifacts, `files:`, certificates and all that
DuckDB opens."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools.contract import ToolSettings

FILE_ROOTS: Final = "NOETL_WORKER_FILE_ROOTS"
"""Name of the environment variable that lists the directories, separated by `:`, whose files playbooks may name. If the
variable is empty, a playbook may name any file except a forbidden one (`is_forbidden`)."""
KERNEL: Final = ("/proc", "/sys")
"""Directories of kernel file systems. Playbooks may never name files in these directories, because such files expose
the worker's memory and the environments of other processes."""
_OWN: Final = "noetl-"
"""Name prefix of the worker's own directories in the temporary directory: the outbox, scratch directories of
commands."""


def hidden(settings: ToolSettings) -> tuple[str, ...]:
    """Return the worker's own paths that Landlock, the kernel's file sandbox, hides from DuckDB. Landlock can hide a
    path only if no playbook creates files in a directory above the path."""
    return tuple(sorted({str(path) for path in map(_real, settings.own_files) if not _is_shared(path, settings)}))


def within_reach(settings: ToolSettings) -> list[str]:
    """Return the worker's own paths that Landlock, the kernel's file sandbox, cannot hide from DuckDB, because
    they lie below a directory in which playbooks create files."""
    return sorted({str(path) for path in map(_real, settings.own_files) if _is_shared(path, settings)})


def _real(path: str) -> Path:
    return Path(path).resolve()


def _is_shared(real: Path, settings: ToolSettings) -> bool:
    """Return True if the path is in, or is itself, a directory in which playbooks may write files. These are the file
    roots and the home, working, data and temporary directories."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path's raises where the user has no home
    named = (home, settings.data_dir, settings.duckdb_extension_directory, settings.artifact_root)
    shared = {tempfile.gettempdir(), str(Path.cwd()), *filter(None, named)}
    places = {*map(_real, shared), *roots(settings)} - {Path(os.sep)}
    return any(real.is_relative_to(place) for place in places)


def roots(settings: ToolSettings) -> tuple[Path, ...]:
    return tuple(Path(root).resolve() for root in settings.file_roots.split(os.pathsep) if root.strip())


def checked(kind: str, given: str, path: Path, settings: ToolSettings) -> Path:
    """Check that playbooks may use the file `path`, and return the path with symbolic links resolved. Error texts quote
    `given`, the path as the playbook wrote it.

    Raises:
        ConfigurationError: playbooks may not use this file.
    """
    real = path.resolve()
    if is_forbidden(real, settings) or real.is_relative_to("/dev"):
        problem = f"{kind}: {given!r} belongs to the kernel or to the worker and is not a file for playbooks"
        raise ConfigurationError(f"{problem}: name another file")
    allowed = roots(settings)
    if allowed and not any(real.is_relative_to(root) for root in allowed):
        raise ConfigurationError(
            f"{kind}: {given!r} is outside {FILE_ROOTS}={settings.file_roots}: use a file in there"
        )
    return real


def opened(kind: str, given: str, path: Path, settings: ToolSettings) -> BinaryIO:
    """Open a file that a playbook names, for reading. Call this in a thread: the file system may not answer.

    Raises:
        ConfigurationError: playbooks may not use this file, or the file cannot be opened or is not a regular file.
    """
    real = checked(kind, given, path, settings)
    try:
        return open_regular(real)
    except OSError as error:
        where = "" if path.is_absolute() else f" (looked for in {Path.cwd()})"
        raise ConfigurationError(f"{kind}: {given!r} cannot be read: {error.strerror}{where}") from error


def open_regular(real: Path) -> BinaryIO:
    """Open a regular file for reading. Raise OSError if the last part of `real` is a symbolic link, or for any other
    kind of file: opening a pipe would block.

    The function checks the open descriptor. A check of the path could be outdated: the path may name another file by
    then.
    """
    descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "the path is no regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def is_forbidden(real: Path, settings: ToolSettings) -> bool:
    """Return True if no playbook may name this path, even inside an allowed directory of NOETL_WORKER_FILE_ROOTS.
    `real` is the path with symbolic links resolved."""
    if any(real.is_relative_to(tree) for tree in KERNEL):
        return True
    if any(real.is_relative_to(own) for own in map(_real, settings.own_files)):
        return True
    temporary = Path(tempfile.gettempdir()).resolve()
    inside = real.relative_to(temporary).parts if real.is_relative_to(temporary) else ()
    return bool(inside) and inside[0].startswith(_OWN)
