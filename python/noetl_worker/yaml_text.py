"""YAML in, through libyaml where PyYAML has it, as its wheels do: a tenth of the time of the loader in Python."""

from __future__ import annotations

from typing import Any, Final

import yaml

from noetl_worker.errors import DocumentError
from noetl_worker.models.wire import JsonValue

LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_OF_A_TAG: Final = (LookupError, AttributeError)
"""PyYAML raises these where a value does not fit its tag, as `!!bool x`."""
UNREADABLE: Final = (yaml.YAMLError, ValueError, OverflowError, RecursionError, *_OF_A_TAG)
"""What reading may raise; ValueError for a date that is none, UnicodeEncodeError too."""


def reason_of(error: Exception) -> str:
    """Of what reading has raised."""
    if isinstance(error, _OF_A_TAG):
        return "a tag (!!...) that does not fit its value"
    return str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)


def place_of(error: UnicodeEncodeError) -> tuple[int, int]:
    """Line and column of what is not UTF-8; both count from 1."""
    before = error.object[: error.start]
    return before.count("\n") + 1, error.start - before.rfind("\n")


def loads(text: str, *, otherwise: str = "not YAML") -> JsonValue:
    """Parse one document.

    Args:
        otherwise: how the error's message begins.

    Raises:
        DocumentError: code `yaml`, with the parser's reason and position in one line.
    """
    try:
        return yaml.load(text, LOADER)
    except UnicodeEncodeError as error:  # bytes of another encoding, or half of a surrogate pair
        line, column = place_of(error)
        raise DocumentError("yaml", f"{otherwise} at line {line}, column {column}: not UTF-8") from error
    except UNREADABLE as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise DocumentError("yaml", f"{otherwise}{where}: {reason_of(error)}") from error
