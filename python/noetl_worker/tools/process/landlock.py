"""Limits on the files that a process can reach, by Linux's Landlock (kernel 5.19 or later).

A domain holds for a process and all that it starts, for good. Landlock has a list of allowed paths, but none of
denied ones. So everything except the hidden paths is allowed, level by level from the root of the file system down
to them. A file that is created later in a directory above something hidden is on no list, and so out of reach as
well.
"""

from __future__ import annotations

import ctypes
import functools
import os
import stat
import struct
import sys
from contextlib import suppress
from typing import Final

from noetl_worker.tools.process.confinement import (
    CREATE_RULESET,
    PR_SET_NO_NEW_PRIVS,
    RESTRICT_SELF,
    SCOPES_SINCE,
    landlock_version,
    libc,
    prctl,
)

_ADD_RULE: Final = 445
_PATH_BENEATH: Final = 1
_LEAST_VERSION: Final = 2
"""First usable version: version 1 has no right to rename from one directory into another."""
_TRUNCATE: Final = 1 << 14
_ALL_OF_2: Final = (1 << 14) - 1
_OF_FILES: Final = (1 << 0) | (1 << 1) | (1 << 2) | _TRUNCATE
"""Execute, write, read, truncate: the rights that a rule for a file may have."""
_READ: Final = 1 << 2
_READ_DIRECTORY: Final = 1 << 3
_KERNEL: Final = ("/proc", "/sys", "/dev")
"""Trees with memory and environments, settings of the machine, and its raw disks."""
_READ_ALL_THE_SAME: Final = (
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/self/cgroup", "/proc/stat", "/proc/sys/vm/overcommit_memory"),
    *("/sys/devices/system/cpu", "/sys/fs/cgroup", "/dev/random", "/dev/urandom"),
)
"""Files with the number of processors and the size of memory, which C libraries and DuckDB read."""
_USED_ALL_THE_SAME: Final = ("/dev/null", "/dev/shm")
_LIBRARIES: Final = (
    *("/usr", "/lib", "/lib64", "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/localtime", "/etc/passwd"),
    *("/etc/hosts", "/etc/host.conf", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services"),
)
"""Paths that DuckDB and its extensions read even with file roots: libraries, time zones, certificates, host lookup."""


@functools.cache
def is_there() -> bool:
    """Return True if this system has a Landlock that is recent enough and permitted."""
    return landlock_version() >= _LEAST_VERSION


def missing() -> list[str]:
    """Return what this system lacks without Landlock, or with an older one, to be logged once at the start."""
    lacking = [] if is_there() else ["/proc, /sys and the worker's own files hidden from DuckDB"]
    return lacking if landlock_version() >= SCOPES_SINCE else [*lacking, "signals kept inside a command"]


def restrict(hidden: tuple[str, ...] = (), only: tuple[str, ...] = ()) -> None:
    """Deny this process /proc, /sys and /dev except for a few files. Call this before it starts other threads.

    Nothing is restricted where there is no Landlock (`is_there`).

    Args:
        hidden: further paths to deny, without links, whether or not they exist yet.
        only: the only directories to allow, besides reading the system's libraries; (): all others.

    Raises:
        OSError: Landlock exists but refuses.
    """
    if not is_there():
        return
    handled = _ALL_OF_2 | (_TRUNCATE if landlock_version() >= 3 else 0)
    ruleset = _call(CREATE_RULESET, struct.pack("=Q", handled), 8, 0)
    try:
        for directory in only or ("/",):
            _allow_but(ruleset, directory.rstrip("/"), (*_KERNEL, *hidden), handled)
        for path in (*_LIBRARIES, *sys.path, sys.base_prefix) if only else ():
            _allow(ruleset, path, handled & (_READ | _READ_DIRECTORY))
        for path in _READ_ALL_THE_SAME:
            _allow(ruleset, path, handled & (_READ | _READ_DIRECTORY), is_kept=True)
        for path in _USED_ALL_THE_SAME:
            _allow(ruleset, path, handled)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        _call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow_but(ruleset: int, path: str, hidden: tuple[str, ...], rights: int) -> None:
    """Allow a directory, or if something in it is hidden, everything else in it."""
    if any(f"{one}/".startswith(f"{path}/") for one in hidden):
        _allow_beside(ruleset, path or "/", hidden, rights)
    else:
        _allow(ruleset, path, rights)


def _allow_beside(ruleset: int, directory: str, hidden: tuple[str, ...], rights: int) -> None:
    """Allow everything in a directory that is not hidden. A directory that we may not list stays closed."""
    with suppress(PermissionError):
        for entry in os.scandir(directory):
            if entry.is_symlink() or entry.path in hidden:  # the target of a link has its own rule
                continue
            if any(path.startswith(f"{entry.path}/") for path in hidden):
                _allow_beside(ruleset, entry.path, hidden, rights)
            else:
                _allow(ruleset, entry.path, rights)


def _allow(ruleset: int, path: str, rights: int, *, is_kept: bool = False) -> None:
    """Allow a path. `is_kept`: keep the file open, because the kernel may replace an entry of /proc that is not
    in use."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        rule = struct.pack("=Qi", rights if is_directory else rights & _OF_FILES, descriptor)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        if not is_kept:
            os.close(descriptor)


def _call(number: int, *arguments: int | bytes) -> int:
    assert libc is not None
    found: int = libc.syscall(number, *(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments))
    if found < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock: {os.strerror(error)}")
    return found
