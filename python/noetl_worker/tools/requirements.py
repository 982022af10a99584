"""The optional modules that a tool kind needs, and a check whether these modules are installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools.contract import Tool
from noetl_worker.tools.process.shortage import raise_shortage

_NATIVE_BUILD: Final = "the native build"


def missing(tool: Tool[Any]) -> tuple[str, ...]:
    """Return an install instruction for each missing module or native feature of the tool; () if nothing is missing."""
    feature: str | None = getattr(tool, "native_feature", None)
    lacking = () if feature is None or _has_native(feature) else (_NATIVE_BUILD,)
    named: Mapping[str, str] = getattr(tool, "requires", {})
    return (*lacking, *(how for module, how in named.items() if not _is_there(module)))


def class_at(place: str) -> type[Tool[Any]]:
    """Import and return the class at "module:Class"."""
    module, _, name = place.partition(":")
    found: type[Tool[Any]] = getattr(importlib.import_module(module), name)
    return found


def load(place: str) -> None:
    """Import the class at "module:Class", and then the modules listed in its attribute `imports`. A missing module is
    skipped: the tool reports it when a command needs it."""
    for module in getattr(class_at(place), "imports", ()):
        with suppress(ImportError):
            importlib.import_module(module)


def library(module: str, extra: str) -> Any:
    """Import and return a module that this package's extra `extra` installs.

    Raises:
        ConfigurationError: the module is not installed; the message names the extra.
        ResourceShortage: this machine lacks the memory or files to load it.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError, MemoryError) as error:
        raise_shortage(f"to load {module}", error)
        if not isinstance(error, ImportError):
            raise
        raise _not_installed(module, extra) from error


def check(module: str, extra: str) -> None:
    """Raise ConfigurationError if `module` is not installed. The error names the extra `extra` that installs the
    module. The module is not loaded."""
    if not _is_there(module):
        raise _not_installed(module, extra)


def _not_installed(module: str, extra: str) -> ConfigurationError:
    return ConfigurationError(f"{module} is not installed: pip install 'noetl-worker[{extra}]'")


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
