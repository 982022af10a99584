"""Fast conversion of command-line values to their types, in place of typer's slow conversion by pydantic.

typer 0.29 builds a pydantic adapter for each value, which takes most of the time of many commands. This module converts
the types that our commands use. typer still converts all other types, and reports invalid values.
"""

from __future__ import annotations

import os
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, Final, get_args, get_origin

_CONSTRAINTS: Final = ("min", "max", "exists", "resolve_path", "writable", "parser", "click_type", "formats")
_NONE: Final = object()


def read_plainly() -> None:
    """Make typer convert command-line values without pydantic, which is slow.

    A version of typer without `build_runtime_param` is left unchanged.
    """
    core: Any = import_module("typer.core")
    by_typer = getattr(core, "build_runtime_param", None)
    if by_typer is not None:
        core.build_runtime_param = lambda descriptor: _PlainValue(descriptor, by_typer)


class _PlainValue:
    """Converter of one command-line value, a fast replacement for `typer._coercion.RuntimeParam`."""

    def __init__(self, descriptor: Any, by_typer: Any) -> None:
        self._descriptor, self._by_typer = descriptor, by_typer

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        found = self._found(value, is_several=param.multiple or param.nargs == -1)
        if found is _NONE:
            return self._by_typer(self._descriptor).coerce(value, param=param, ctx=ctx)
        return found

    def _found(self, value: Any, *, is_several: bool) -> Any:
        annotation, info = self._descriptor.annotation, self._descriptor.parameter_info
        if value is None:
            return () if is_several else None
        if any(getattr(info, name, None) not in (None, False) for name in _CONSTRAINTS):
            return _NONE
        if get_origin(annotation) is not list:
            return _NONE if is_several else _read(value, annotation)
        (inner,) = get_args(annotation)
        found = [_read(item, inner) for item in value] if isinstance(value, (list, tuple)) else [_NONE]
        return _NONE if _NONE in found else found


def _read(value: Any, kind: Any) -> Any:
    """Convert a command-line value to the type `kind`. Return _NONE for an unknown type or an invalid value."""
    if kind in (str, bool):
        return value if isinstance(value, kind) else _NONE
    if not isinstance(kind, type) or not isinstance(value, (str, kind)):
        return _NONE
    if issubclass(kind, Path):
        path = Path(str(value))
        return _NONE if path.exists() and not os.access(path, os.R_OK) else path
    if issubclass(kind, Enum):
        return next((member for member in kind if value in (member, member.value)), _NONE)
    return _NONE
