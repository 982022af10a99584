"""Which credential an `auth` object names: one reading for the kinds that fetch it and for what is hidden of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_NAMES: Final = ("credential", "key", "alias")
ALIAS_FIELDS: Final = frozenset({*_NAMES, "source"})
"""What says only which credential it is; the other fields of the object are data of its own."""


def alias_of(auth: Mapping[str, Any]) -> Any:
    """The alias in {"credential": alias} or {"source": "credential", "key": alias}; None: it has the values itself.

    A `key` without `source` is an API's key, and no alias.
    """
    if auth.get("source") != "credential" and auth.get("credential") is None:
        return None
    return next((auth[name] for name in _NAMES if auth.get(name) is not None), None)
