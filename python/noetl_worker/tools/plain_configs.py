"""A cache of checked configs. Equal text means an equal config if nothing in it is a template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.wire import JsonValue
from noetl_worker.text import json_text

_MOST: Final = 512
_LONGEST: Final = 4_096
"""Longest config text that is cached, in bytes. All together take a few megabytes; a longer config costs more to run
than to check."""


class Checked(NamedTuple):
    """The result of a check. Calls with the same text share the config, and nothing changes it."""

    config: Any
    warnings: tuple[ConfigurationError, ...]
    timeout_s: float | None
    needed_s: float
    """Minimum seconds that the call is given if its config has no timeout."""


class PlainConfigs(dict[tuple[str, bytes], Checked]):
    """The last checked configs by kind and text. Configs with secrets are not cached, as a secret must not outlive
    its command."""

    @staticmethod
    def key(kind: str, raw: Mapping[str, JsonValue] | JsonValue) -> tuple[str, bytes] | None:
        """Return the cache key of a config, or None for one that is not cached: with a template, long, or not JSON."""
        try:
            text = json_text.dumps(raw)
        except (TypeError, ValueError):
            return None
        return None if len(text) > _LONGEST or b"{{" in text or b"{%" in text else (kind, text)

    def add(self, key: tuple[str, bytes], checked: Checked) -> None:
        if len(self) >= _MOST:
            del self[next(iter(self))]  # the oldest entry; one still in use is added again at its next call
        self[key] = checked
