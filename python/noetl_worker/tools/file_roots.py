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
"""Variable with the directories, separated by `:`, in which playbooks may name files. Empty: any that is not forbidden.
"""
KERNEL: Final = ("/proc", "/sys")
"""Trees that expose the worker's memory and other processes' environments."""
_OWN: Final = "noetl-"
"""Name prefix of the worker's own directories in the temporary one: the outbox, other commands' scratch directories."""


def hidden(settings: ToolSettings) -> tuple[str, ...]:
    """Return the worker's own paths that Landlock can hide from DuckDB: playbooks create no files in their parents."""
    return tuple(sorted({str(path) for path in map(_real, settings.own_files) if not _is_shared(path, settings)}))


def within_reach(settings: ToolSettings) -> list[str]:
    """Return the worker's own paths that cannot be hidden from DuckDB: playbooks create files in their parents."""
    return sorted({str(path) for path in map(_real, settings.own_files) if _is_shared(path, settings)})


def _real(path: str) -> Path:
    return Path(path).resolve()


def _is_shared(real: Path, settings: ToolSettings) -> bool:
    """Return True for a path in a directory where playbooks write files: a root, the home, the working or the
    temporary directory."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path's raises where the user has no home
    named = (home, settings.data_dir, settings.duckdb_extension_directory, settings.artifact_root)
    shared = {tempfile.gettempdir(), str(Path.cwd()), *filter(None, named)}
    places = {*map(_real, shared), *roots(settings)} - {Path(os.sep)}
    return any(real.is_relative_to(place) for place in places)


def roots(settings: ToolSettings) -> tuple[Path, ...]:
    return tuple(Path(root).resolve() for root in settings.file_roots.split(os.pathsep) if root.strip())


def checked(kind: str, given: str, path: Path, settings: ToolSettings) -> Path:
    """Return `path` with its links followed. `given` is the playbook's name for it.

    Raises:
        ConfigurationError: playbooks may not use this file.
    """
    real = path.resolve()
    if is_forbidden(real, settings) or real.is_relative_to("/dev"):
        raise ConfigurationError(f"{kind}: {given!r} is the kernel's or the worker's own, not a file for playbooks")
    allowed = roots(settings)
    if allowed and not any(real.is_relative_to(root) for root in allowed):
        raise ConfigurationError(
            f"{kind}: {given!r} is outside {FILE_ROOTS}={settings.file_roots}: use a file in there"
        )
    return real


def opened(kind: str, given: str, path: Path, settings: ToolSettings) -> BinaryIO:
    """Open a file that a playbook names, for reading. Call this in a thread: the file system may not answer.

    Raises:
        ConfigurationError: as `checked`, or it cannot be opened, or is no regular file.
    """
    real = checked(kind, given, path, settings)
    try:
        return open_regular(real)
    except OSError as error:
        where = "" if path.is_absolute() else f" (looked for in {Path.cwd()})"
        raise ConfigurationError(f"{kind}: {given!r} cannot be read: {error.strerror}{where}") from error


def open_regular(real: Path) -> BinaryIO:
    """Open a path that has no links. Raises OSError, also for anything but a regular file: opening a pipe would block.

    The open descriptor is checked, not the path, which may meanwhile name another file.
    """
    descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def is_forbidden(real: Path, settings: ToolSettings) -> bool:
    """Return True if playbooks may never name this path (without links), whatever the roots are."""
    if any(real.is_relative_to(tree) for tree in KERNEL):
        return True
    if any(real.is_relative_to(own) for own in map(_real, settings.own_files)):
        return True
    temporary = Path(tempfile.gettempdir()).resolve()
    inside = real.relative_to(temporary).parts if real.is_relative_to(temporary) else ()
    return bool(inside) and inside[0].startswith(_OWN)
