"""What a kind needs beside the plain install, and what of it is missing here."""

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
    """How to install what the tool lacks, for each thing; () where it can do all it is for."""
    feature: str | None = getattr(tool, "native_feature", None)
    lacking = () if feature is None or _has_native(feature) else (_NATIVE_BUILD,)
    named: Mapping[str, str] = getattr(tool, "requires", {})
    return (*lacking, *(how for module, how in named.items() if not _is_there(module)))


def class_at(place: str) -> type[Tool[Any]]:
    """The class at "module:Class", imported."""
    module, _, name = place.partition(":")
    found: type[Tool[Any]] = getattr(importlib.import_module(module), name)
    return found


def load(place: str) -> None:
    """Import the class at "module:Class" and its `imports`, as far as they are installed: the kind says what is not."""
    for module in getattr(class_at(place), "imports", ()):
        with suppress(ImportError):
            importlib.import_module(module)


def library(module: str, extra: str) -> Any:
    """A module of the library that `extra` of this package has.

    Raises:
        ConfigurationError: it is not installed; names the extra.
        ResourceShortage: this machine has not what it takes to load it.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError, MemoryError) as error:
        raise_shortage(f"no room to load {module}", error)
        if not isinstance(error, ImportError):
            raise
        raise _not_installed(module, extra) from error


def check(module: str, extra: str) -> None:
    """Raise ConfigurationError where a module is not installed that `extra` of this package has; it is not loaded."""
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
