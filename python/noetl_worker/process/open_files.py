"""How many files this process may have open at the same time."""

from __future__ import annotations

import sys
from typing import Final

if sys.platform != "win32":  # which has no such limit
    import resource

_ENOUGH: Final = 1_048_576
"""Where the hard limit is none at all, as on macOS, whose kernel has one of its own."""
_MACOS_MOST: Final = 10_240


def raise_open_files_limit() -> int | None:
    """Raise the soft limit of open files to the hard one; the limit in force, or None where there is none.

    The soft one is 1024 nearly everywhere, for programs that use select(): a worker of many slots needs more, and one
    that has none left fails whatever it runs.
    """
    if sys.platform == "win32":
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (_ENOUGH if hard == resource.RLIM_INFINITY else hard, _MACOS_MOST):
        if soft != resource.RLIM_INFINITY and soft >= wanted:
            return soft
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # more than the kernel gives a process, whatever the hard limit says
            continue
        return wanted
    return soft
