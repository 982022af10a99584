"""Rules for the files of the worker's machine that a playbook may name: artifacts, `files:`, certificates and all that
DuckDB opens."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

from noetl_worker.errors import ConfigurationError

FILE_ROOTS: Final = "NOETL_WORKER_FILE_ROOTS"
"""Variable: directories, separated by `:`, that must contain such files. Empty: any directory that is not forbidden."""
ARTIFACT_ROOT: Final = "NOETL_ARTIFACT_ROOT"
"""Variable: the directory that must contain file artifacts, in addition to the other rules."""
KERNEL: Final = ("/proc", "/sys")
"""Trees that expose the worker's memory and other processes' environments."""
_SHARED: Final = ("HOME", "NOETL_DATA_DIR", "NOETL_DUCKDB_EXTENSION_DIRECTORY", ARTIFACT_ROOT)
"""Variables naming directories in which playbooks create files, besides the roots, the working and temporary one."""
_OWN: Final = "noetl-"
"""Name prefix of the worker's own directories in the temporary one: the outbox, other commands' scratch directories."""


_own: tuple[str, ...] = ()


def keep_own(files: Iterable[str]) -> None:
    """Set the worker's own files in this process that lack that prefix: its outbox, files with its secrets."""
    global _own
    _own = tuple(files)


def hidden() -> tuple[str, ...]:
    """Return the worker's own paths that DuckDB can be denied by directory: playbooks create no files above them."""
    return tuple(sorted({str(path) for path in map(_real, _own) if not _is_shared(path)}))


def within_reach() -> list[str]:
    """Return the worker's own paths that cannot be denied by directory."""
    return sorted({str(path) for path in map(_real, _own) if _is_shared(path)})


def _real(path: str) -> Path:
    return Path(path).resolve()


def _is_shared(real: Path) -> bool:
    named = (os.environ.get(variable) for variable in _SHARED)
    shared = {tempfile.gettempdir(), str(Path.cwd()), *filter(None, named)}
    places = {*map(_real, shared), *roots()} - {Path(os.sep)}
    return any(real.is_relative_to(place) for place in places)


def roots() -> tuple[Path, ...]:
    return tuple(Path(root).resolve() for root in os.environ.get(FILE_ROOTS, "").split(os.pathsep) if root.strip())


def checked(kind: str, given: str, path: Path, *, within: str | None = None) -> Path:
    """Return `path` with its links followed, if a playbook may name it.

    `given` is the name the playbook uses; `within` is a variable that names a narrower root.

    Raises:
        ConfigurationError: a file that a playbook may not name.
    """
    real = path.resolve()
    if is_forbidden(real) or real.is_relative_to("/dev"):
        raise ConfigurationError(f"{kind}: {given!r} is the kernel's or the worker's own, not a file for playbooks")
    narrower = os.environ.get(within) if within else None
    if narrower and not real.is_relative_to(Path(narrower).resolve()):
        raise ConfigurationError(f"{kind}: {given!r} is outside {within}={narrower}")
    allowed = roots()
    if allowed and not any(real.is_relative_to(root) for root in allowed):
        raise ConfigurationError(f"{kind}: {given!r} is outside {FILE_ROOTS}={os.environ[FILE_ROOTS]}")
    return real


def opened(kind: str, given: str, path: Path) -> BinaryIO:
    """Open a file that a playbook names, for reading. Call this in a thread: the file system may not answer.

    Raises:
        ConfigurationError: as `checked`, or it cannot be opened, or is no regular file.
    """
    real = checked(kind, given, path)
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


def is_forbidden(real: Path) -> bool:
    """Return True if playbooks may never name this path (without links), whatever the roots are."""
    if any(real.is_relative_to(tree) for tree in KERNEL):
        return True
    if any(real.is_relative_to(own) for own in map(_real, _own)):
        return True
    temporary = Path(tempfile.gettempdir()).resolve()
    inside = real.relative_to(temporary).parts if real.is_relative_to(temporary) else ()
    return bool(inside) and inside[0].startswith(_OWN)
