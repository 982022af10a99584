"""The engine, in Rust and in Python: notifications, cases, redaction.

Its public names (docs/library.md) are those of `chosen.py`, which loads an engine. A command that needs none does not
load one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from noetl_worker.engine.chosen import *  # noqa: F403 - its `__all__` lists the names


def __getattr__(name: str) -> object:
    """Return one of the public names, or the list of them, from the chosen engine."""
    chosen = importlib.import_module("noetl_worker.engine.chosen")
    if name not in ("__all__", *chosen.__all__):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(chosen, name)
