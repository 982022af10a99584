"""The engine, in Rust and in Python: notifications, cases, redaction.

Its public names (docs/library.md) are those of `chosen.py`, which loads an engine. A command that needs none does not
load one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from noetl_worker.engine.chosen import (
        ENGINE,
        SOURCE_HASH,
        CaseMatch,
        CompiledCases,
        PendingMatch,
        compile_cases,
        decide,
        decode_notification,
        evaluate,
        find_marks,
        fit_result,
        load_engine,
        redact_text,
        require,
        version_line,
    )

__all__ = [
    "ENGINE",
    "SOURCE_HASH",
    "CaseMatch",
    "CompiledCases",
    "PendingMatch",
    "compile_cases",
    "decide",
    "decode_notification",
    "evaluate",
    "find_marks",
    "fit_result",
    "load_engine",
    "redact_text",
    "require",
    "version_line",
]


def __getattr__(name: str) -> object:
    """Return one of the public names, from the chosen engine."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("noetl_worker.engine.chosen"), name)
