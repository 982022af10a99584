"""YAML in, through libyaml where PyYAML has it, as its wheels do: a tenth of the time of the loader in Python."""

from __future__ import annotations

from typing import Any, Final

import yaml

from noetl_worker.errors import DocumentError
from noetl_worker.models.wire import JsonValue

__all__ = ["LOADER", "loads"]

LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def loads(text: str, *, otherwise: str = "not YAML") -> JsonValue:
    """Parse one document.

    Args:
        otherwise: how the error's message begins.

    Raises:
        DocumentError: code `yaml`, with the parser's reason and position in one line.
    """
    try:
        return yaml.load(text, LOADER)
    except (yaml.YAMLError, UnicodeEncodeError) as error:  # half of a surrogate pair: no text for libyaml
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise DocumentError("yaml", f"{otherwise}{where}: {getattr(error, 'problem', None) or error}") from error
