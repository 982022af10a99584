"""Limits on the files that a process can reach, by Linux's Landlock (kernel 5.19 or later).

A domain holds for a process and all that it starts, for good. Landlock has a list of allowed paths, but none of
denied ones. So everything except the hidden paths is allowed, level by level from the root of the file system down
to them. A file that is created later in a directory above something hidden is on no list, and so out of reach as
well.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
from typing import Final

from noetl_worker.tools.process.confinement import (
    CREATE_RULESET,
    FILES_SINCE,
    PR_SET_NO_NEW_PRIVS,
    RESTRICT_SELF,
    SCOPES_SINCE,
    TRUNCATE,
    allow,
    allow_but,
    call_landlock,
    landlock_version,
    prctl,
)

_ALL_OF_2: Final = (1 << 14) - 1
_READ: Final = 1 << 2
_READ_DIRECTORY: Final = 1 << 3
_KERNEL: Final = ("/proc", "/sys", "/dev")
"""Trees with memory and environments, settings of the machine, and its raw disks."""
_READ_ALL_THE_SAME: Final = (
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/self/cgroup", "/proc/stat", "/proc/sys/vm/overcommit_memory"),
    *("/sys/devices/system/cpu", "/sys/fs/cgroup", "/dev/random", "/dev/urandom"),
)
"""Paths in these trees that stay readable. C libraries and DuckDB read there about processors and memory."""
_USED_ALL_THE_SAME: Final = ("/dev/null", "/dev/shm")
_LIBRARIES: Final = (
    *("/usr", "/lib", "/lib64", "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/localtime", "/etc/passwd"),
    *("/etc/hosts", "/etc/host.conf", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services"),
)
"""Paths that DuckDB and its extensions read even with file roots: libraries, time zones, certificates, host lookup."""


@functools.cache
def is_there() -> bool:
    """Return True if this system has a Landlock that is recent enough and permitted."""
    return landlock_version() >= FILES_SINCE


def missing() -> list[str]:
    """Return the protections that this system lacks because Landlock is absent or too old. The worker logs them at its
    start."""
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
    handled = _ALL_OF_2 | (TRUNCATE if landlock_version() >= 3 else 0)
    ruleset = call_landlock(CREATE_RULESET, struct.pack("=Q", handled), 8, 0)
    try:
        for directory in only or ("/",):
            allow_but(ruleset, directory.rstrip("/"), (*_KERNEL, *hidden), handled)
        for path in (*_LIBRARIES, *sys.path, sys.base_prefix) if only else ():
            allow(ruleset, path, handled & (_READ | _READ_DIRECTORY))
        for path in _READ_ALL_THE_SAME:
            allow(ruleset, path, handled & (_READ | _READ_DIRECTORY), is_kept=True)
        for path in _USED_ALL_THE_SAME:
            allow(ruleset, path, handled)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        call_landlock(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
