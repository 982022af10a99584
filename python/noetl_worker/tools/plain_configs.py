"""A cache of tool configs that were checked, by the config's text. Only configs without templates are cached: without
templates, equal text gives an equal config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.wire import JsonValue
from noetl_worker.text import json_text

_MOST: Final = 512
_LONGEST: Final = 4_096
"""Longest config text that is cached, in bytes. With this limit the full cache takes a few megabytes. A longer config
takes more time to run than to check, so caching gains little."""


class Checked(NamedTuple):
    """The result of checking one tool config. All calls with the same config text share this object, so nobody may
    change it."""

    config: Any
    warnings: tuple[ConfigurationError, ...]
    timeout_s: float | None
    needed_s: float
    """Seconds that the tool needs, such as the sum of the timeouts of a sequence's tasks. A worker's shorter default
    timeout is raised to this number."""


class PlainConfigs(dict[tuple[str, bytes], Checked]):
    """The most recently checked configs, by kind and text. A config with a secret is not cached, because the worker
    must not keep a secret after its command."""

    @staticmethod
    def key(kind: str, raw: Mapping[str, JsonValue] | JsonValue) -> tuple[str, bytes] | None:
        """Return the cache key of a config. Return None for a config that must not be cached: one with a template, a
        long one, or not JSON."""
        try:
            text = json_text.dumps(raw)
        except (TypeError, ValueError):
            return None
        return None if len(text) > _LONGEST or b"{{" in text or b"{%" in text else (kind, text)

    def add(self, key: tuple[str, bytes], checked: Checked) -> None:
        if len(self) >= _MOST:
            del self[next(iter(self))]  # the oldest entry; one still in use is added again at its next call
        self[key] = checked
