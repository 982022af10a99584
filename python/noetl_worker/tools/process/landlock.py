"""Limits on the files that a process can open, by Linux's Landlock (kernel 5.19 or later).

A restricted process and its child processes can never lift the restriction. Landlock only knows lists of allowed paths.
To hide a path, this module goes down from the root. In each directory above the path it allows all other entries. A
file created later in such a directory is not on the list. So the process cannot open that file either.
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
"""Directories of the kernel that `restrict` denies. They show memory and environments of processes, settings of the
machine, and raw disks."""
_READ_ALL_THE_SAME: Final = (
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/self/cgroup", "/proc/stat", "/proc/sys/vm/overcommit_memory"),
    *("/sys/devices/system/cpu", "/sys/fs/cgroup", "/dev/random", "/dev/urandom"),
)
"""Paths in the kernel's directories that stay readable. C libraries and DuckDB read these paths to learn about
processors and memory."""
_USED_ALL_THE_SAME: Final = ("/dev/null", "/dev/shm")
_LIBRARIES: Final = (
    *("/usr", "/lib", "/lib64", "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/localtime", "/etc/passwd"),
    *("/etc/hosts", "/etc/host.conf", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services"),
)
"""Paths that DuckDB and its extensions must always read: libraries, time zones, certificates, host lookup. `restrict`
allows them even if only some directories are allowed."""


@functools.cache
def is_there() -> bool:
    """Return True if this system has Landlock of version 2 or later, and permits its use."""
    return landlock_version() >= FILES_SINCE


def missing() -> list[str]:
    """Return the protections that this system lacks because Landlock is absent or too old. The worker logs them at its
    start."""
    lacking = [] if is_there() else ["/proc, /sys and the worker's own files hidden from DuckDB"]
    return lacking if landlock_version() >= SCOPES_SINCE else [*lacking, "signals kept inside a command"]


def restrict(hidden: tuple[str, ...] = (), only: tuple[str, ...] = ()) -> None:
    """Deny this process the directories /proc, /sys and /dev, except for a few files. Call this before the process
    starts a second thread.

    Without Landlock (`is_there`), this function does nothing.

    Args:
        hidden: further paths to deny, without links, whether or not they exist yet.
        only: if not empty, allow only these directories, and reading the system's libraries. Empty: allow everything
            that is not denied.

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
