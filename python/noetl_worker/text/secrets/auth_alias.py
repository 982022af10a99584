"""The credential alias in an `auth` object. The tools and redaction find the alias by the same function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_NAMES: Final = ("credential", "key", "alias")
ALIAS_FIELDS: Final = frozenset({*_NAMES, "source"})
"""Fields of an `auth` object that only name a credential. Other fields of the object have values, such as a header."""


def find_alias(auth: Mapping[str, Any]) -> Any:
    """Return the alias in {"credential": alias} or {"source": "credential", "key": alias}, or None.

    None means that the object contains the values itself. A `key` without `source` is an API key, not an alias.
    """
    if auth.get("source") != "credential" and auth.get("credential") is None:
        return None
    return next((auth[name] for name in _NAMES if auth.get(name) is not None), None)
