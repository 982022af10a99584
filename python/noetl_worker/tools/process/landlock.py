"""What a process reaches of the file system, by Linux's Landlock (kernel 5.19 or later).

A domain is for a process and for all that it starts, and for good. Landlock has a list of what is allowed and none of
what is not: here it is everything beside what is hidden, level by level from the root of the file system down to it.
What is made later in a directory above something hidden is on no list, and so out of reach as well.
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
"""Version 1 has no right to rename from one directory into another."""
_TRUNCATE: Final = 1 << 14
_ALL_OF_2: Final = (1 << 14) - 1
_OF_FILES: Final = (1 << 0) | (1 << 1) | (1 << 2) | _TRUNCATE
"""Execute, write, read, truncate: the rights that a rule for a file may have."""
_READ: Final = 1 << 2
_READ_DIRECTORY: Final = 1 << 3
_KERNEL: Final = ("/proc", "/sys", "/dev")
"""Memory and environments, settings of the machine, its disks as they are."""
_READ_ALL_THE_SAME: Final = (
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/self/cgroup", "/proc/stat", "/proc/sys/vm/overcommit_memory"),
    *("/sys/devices/system/cpu", "/sys/fs/cgroup", "/dev/random", "/dev/urandom"),
)
"""How many processors and how much memory there are: C libraries and DuckDB ask for it here."""
_USED_ALL_THE_SAME: Final = ("/dev/null", "/dev/shm")
_LIBRARIES: Final = (
    *("/usr", "/lib", "/lib64", "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/localtime", "/etc/passwd"),
    *("/etc/hosts", "/etc/host.conf", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services"),
)
"""What DuckDB and its extensions read with file roots: libraries, time zones, certificates, how a host is found."""


@functools.cache
def is_there() -> bool:
    """Whether this system has a Landlock that is recent enough and permitted."""
    return landlock_version() >= _LEAST_VERSION


def missing() -> list[str]:
    """What a system without it, or with an older one, cannot do, to be logged once at the start."""
    lacking = [] if is_there() else ["/proc, /sys and the worker's own files hidden from DuckDB"]
    return lacking if landlock_version() >= SCOPES_SINCE else [*lacking, "signals kept inside a command"]


def restrict(hidden: tuple[str, ...] = (), only: tuple[str, ...] = ()) -> None:
    """Keep this process from /proc, /sys and /dev but for a few figures and files. Call it before its other threads.

    Nothing where there is no Landlock (`is_there`).

    Args:
        hidden: paths without links that it does not reach either, there already or not.
        only: the directories that it reaches then, beside the system's libraries, which it reads; (): every other.

    Raises:
        OSError: it is there and refuses.
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
    """A directory, or what is in it beside what is hidden there."""
    if any(f"{one}/".startswith(f"{path}/") for one in hidden):
        _allow_beside(ruleset, path or "/", hidden, rights)
    else:
        _allow(ruleset, path, rights)


def _allow_beside(ruleset: int, directory: str, hidden: tuple[str, ...], rights: int) -> None:
    """All that is in a directory but what is hidden in it; a directory that we may not list stays closed."""
    with suppress(PermissionError):
        for entry in os.scandir(directory):
            if entry.is_symlink() or entry.path in hidden:  # what a link leads to has its own rule
                continue
            if any(path.startswith(f"{entry.path}/") for path in hidden):
                _allow_beside(ruleset, entry.path, hidden, rights)
            else:
                _allow(ruleset, entry.path, rights)


def _allow(ruleset: int, path: str, rights: int, *, is_kept: bool = False) -> None:
    """`is_kept`: the file stays open: the kernel may make another entry of /proc once nobody has this one."""
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
