"""Configs that were checked a moment ago: the same text means the same config, where nothing in it is a template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.wire import JsonValue
from noetl_worker.text import json_text

_MOST: Final = 512
_LONGEST: Final = 4_096
"""Bytes. Together some megabytes at most; a longer config costs more to run than to check."""


class Checked(NamedTuple):
    """What a check found; the config is shared by the calls that have the same text, and nothing changes it."""

    config: Any
    warnings: tuple[ConfigurationError, ...]
    timeout_s: float | None
    needed_s: float
    """Without a timeout of its own it is given at least so long."""


class PlainConfigs(dict[tuple[str, bytes], Checked]):
    """The last checked configs by kind and text. Not for configs with secrets: they must not outlive their command."""

    @staticmethod
    def key(kind: str, raw: Mapping[str, JsonValue] | JsonValue) -> tuple[str, bytes] | None:
        """Where a config is kept; None for one that is not: it has a template, is long, or is no JSON."""
        try:
            text = json_text.dumps(raw)
        except (TypeError, ValueError):
            return None
        return None if len(text) > _LONGEST or b"{{" in text or b"{%" in text else (kind, text)

    def keep(self, key: tuple[str, bytes], checked: Checked) -> None:
        if len(self) >= _MOST:
            del self[next(iter(self))]  # the oldest: what is in use comes back at once
        self[key] = checked
