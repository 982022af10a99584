"""The warning that there is no Rust engine: one line, shown once to each user of a machine."""

from __future__ import annotations

import warnings
from typing import Final

from noetl_worker.observability.terminal import say

_MARKER: Final = "python-engine-noticed"


def notice_missing_engine() -> None:
    """Import the engine, and print a warning if the Rust engine is missing. Each user sees the warning once: a file in
    the state directory records that."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        from noetl_worker.engine import chosen as engine  # noqa: F401
    if caught and _is_first_time():
        say(str(caught[0].message), err=True)


def _is_first_time() -> bool:
    """Write the file that records the printed warning. Return False if the file existed before, else True."""
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
