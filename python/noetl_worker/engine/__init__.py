"""The engine, in Rust and in Python: the functions that decode notifications, evaluate cases and redact secrets.

`chosen.py` has the public names (docs/library.md). The first use of a public name imports `chosen.py` and loads one of
the two engines. So a CLI command that uses no public name loads no engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from noetl_worker.engine.chosen import *  # noqa: F403 - its `__all__` lists the names


def __getattr__(name: str) -> object:
    """Return a public object of the chosen engine. For the name `__all__`, return the list of public names."""
    chosen = importlib.import_module("noetl_worker.engine.chosen")
    if name not in ("__all__", *chosen.__all__):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(chosen, name)
