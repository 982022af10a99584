"""What a kind needs beside the plain install, and what of it is missing here."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, Final

from noetl_worker.tools.contract import Tool

__all__ = ["missing"]

_EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "duckdb": ("duckdb",),
    "postgres": ("psycopg",),
}
"""Kind -> modules; the extra of the distribution has the kind's name."""
_NATIVE_BUILD: Final = "the native build"


def missing(tool: Tool[Any]) -> tuple[str, ...]:
    """How to install what the tool lacks, for each thing; () where it can run."""
    if tool.kind == "rhai":
        return () if _has_native("rhai") else (_NATIVE_BUILD,)
    lacking = [] if all(map(_is_there, _EXTRAS.get(tool.kind, ()))) else [f"noetl-worker[{tool.kind}]"]
    needed: Mapping[str, str] = getattr(tool, "requires", {})
    return (*lacking, *(how for module, how in needed.items() if not _is_there(module)))


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a submodule of a package that is not installed
        return False


def _has_native(feature: str) -> bool:
    try:
        return feature in importlib.import_module("noetl_worker._core").FEATURES
    except ImportError:
        return False
