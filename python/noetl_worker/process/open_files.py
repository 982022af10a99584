"""The limit of files that this process may have open at the same time."""

from __future__ import annotations

import sys
from typing import Final

if sys.platform != "win32":  # Windows has no such limit
    import resource

_ENOUGH: Final = 1_048_576
"""Number of open files to request if the hard limit is infinite, as on macOS. The macOS kernel refuses this number, and
`_MACOS_MOST` is requested next."""
_MACOS_MOST: Final = 10_240


def raise_open_files_limit() -> int | None:
    """Raise the soft limit of open files to the hard limit. Return the soft limit that now holds, or None on Windows,
    where no such limit exists.

    Nearly every system starts a process with a soft limit of 1024. A worker with many slots needs more descriptors:
    without a free descriptor every command fails.
    """
    if sys.platform == "win32":
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (_ENOUGH if hard == resource.RLIM_INFINITY else hard, _MACOS_MOST):
        if soft != resource.RLIM_INFINITY and soft >= wanted:
            return soft
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # the kernel's own limit is below the hard limit
            continue
        return wanted
    return soft
