"""What a kind needs beside the plain install, and what of it is missing here."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from noetl_worker.tools.contract import Tool

__all__ = ["missing"]


class _Need(NamedTuple):
    module: str
    extra: str
    purpose: str = ""
    """Empty: for everything that the kind does."""


_NEEDS: Final[Mapping[str, tuple[_Need, ...]]] = {
    "duckdb": (_Need("duckdb", "duckdb"),),
    "ducklake": (_Need("duckdb", "duckdb"),),
    "postgres": (_Need("psycopg", "postgres"),),
    "snowflake": (_Need("snowflake.connector", "snowflake"),),
    "transfer": (
        _Need("duckdb", "duckdb", "for duckdb and files"),
        _Need("psycopg", "postgres", "for postgres"),
        _Need("snowflake.connector", "snowflake", "for snowflake"),
    ),
    "http": (_Need("google.auth", "gcp", "for service accounts of Google"),),
    "nats": (_Need("nkeys", "nkeys", "for creds and nkeys"),),
    "subscription": (_Need("nkeys", "nkeys", "for creds and nkeys"),),
}
_NATIVE_BUILD: Final = "the native build"


def missing(tool: Tool[Any]) -> tuple[str, ...]:
    """How to install what the tool lacks, for each thing; () where it can do all it is for."""
    if tool.kind == "rhai":
        return () if _has_native("rhai") else (_NATIVE_BUILD,)
    lacking = [need for need in _NEEDS.get(tool.kind, ()) if not _is_there(need.module)]
    ours = [f"noetl-worker[{need.extra}]" + (f" {need.purpose}" if need.purpose else "") for need in lacking]
    own: Mapping[str, str] = getattr(tool, "requires", {})
    return (*ours, *(how for module, how in own.items() if not _is_there(module)))


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
