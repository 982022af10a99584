"""The one-line warning that this package's compiled Rust code, the Rust engine, is not installed.

Each user of a machine sees the warning once.
"""

from __future__ import annotations

import warnings
from typing import Final

from noetl_worker.observability.terminal import say

_MARKER: Final = "python-engine-noticed"


def notice_missing_engine() -> None:
    """Print a warning if this package's compiled Rust engine is missing, but only once for each user of the machine.

    A file in the user's state directory records that the warning was printed.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        from noetl_worker.engine import chosen as engine  # noqa: F401
    if caught and _is_first_time():
        say(str(caught[0].message), err=True)


def _is_first_time() -> bool:
    """Return True if the warning about the slower Python engine was not yet printed on this machine. Create the file
    that records the printing."""
    from noetl_worker.pipeline.outbox.directory import make_file, state_directory

    marker = state_directory("dev") / _MARKER
    try:
        marker.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_file(marker)
    except FileExistsError:
        return False
    except OSError:
        return True
    return True
