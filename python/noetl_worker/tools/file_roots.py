"""Which files of the worker's machine a playbook may name: artifacts, `files:`, certificates, what DuckDB opens."""

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
"""Variable: the directories that such files have to be in, separated by `:`; empty: anywhere but what is forbidden."""
ARTIFACT_ROOT: Final = "NOETL_ARTIFACT_ROOT"
"""Variable: the directory that file artifacts have to be in, within the others."""
KERNEL: Final = ("/proc", "/sys")
"""The worker's memory, other processes' environments."""
_SHARED: Final = ("HOME", "NOETL_DATA_DIR", "NOETL_DUCKDB_EXTENSION_DIRECTORY", ARTIFACT_ROOT)
"""Variables: directories in which playbooks make files, as they do in the roots, the working and the temporary one."""
_OWN: Final = "noetl-"
"""How the worker's directories in the temporary one begin: the outbox, the scratch directories of other commands."""


_own: tuple[str, ...] = ()


def keep_own(files: Iterable[str]) -> None:
    """Set what is the worker's own in this process, beside what has its name: its outbox, files with its secrets."""
    global _own
    _own = tuple(files)


def hidden() -> tuple[str, ...]:
    """The worker's own that DuckDB can be kept from by its place: nothing else is made in a directory above it."""
    return tuple(sorted({str(path) for path in map(_real, _own) if not _is_shared(path)}))


def within_reach() -> list[str]:
    """The worker's own that it cannot be kept from so."""
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
    """`path` with its links followed. `given` is how the playbook names it, `within` a variable with a narrower root.

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
    """The file that a playbook names, for reading; called in a thread, as its file system may not answer.

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
    """Of a path without links. Raises OSError, for all but regular files too: a pipe waits for its other end.

    The open file is asked, not its name, which may be another's meanwhile.
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
    """Of a path without links, whatever the roots are."""
    if any(real.is_relative_to(tree) for tree in KERNEL):
        return True
    if any(real.is_relative_to(own) for own in map(_real, _own)):
        return True
    temporary = Path(tempfile.gettempdir()).resolve()
    inside = real.relative_to(temporary).parts if real.is_relative_to(temporary) else ()
    return bool(inside) and inside[0].startswith(_OWN)
