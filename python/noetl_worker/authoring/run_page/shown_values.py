"""The conversion of values for the execution page: redaction, conversion to text, and shortening."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from noetl_worker.authoring.run_page.run import ExecutionRun
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.secrets import redaction
from noetl_worker.text.secrets.known import KnownSecrets

MOST_CHARS: Final = 20_000
"""Largest number of characters of one text. A page with a thousand texts of 100 kB would open slowly."""
_LEAST_CHARS: Final = 1_000
_ALL_CHARS: Final = 40_000_000
"""Approximate number of characters that the page of an execution with thousands of commands may have."""
_TEXTS_OF_COMMAND: Final = 3
ShownText: TypeAlias = list[Any]
"""A list of a title, a text and, if the text was shortened, the original number of characters."""


class ShownValues:
    """Converts the values on one page: redacts secrets, and shortens long texts."""

    def __init__(self, runs: Sequence[ExecutionRun], own_secrets: Iterable[str] = ()) -> None:
        """Collect the secrets in the inputs of executions and commands, so that they are redacted in all values."""
        known, commands = KnownSecrets(tuple(own_secrets)), [command for run in runs for command in run.commands]
        for given in (*(run.workload for run in runs), *(command.input for command in commands)):
            known.add_inline(given)
        for command in commands:
            if command.tasks:  # the inputs of tasks are rendered with these values
                known.add_inline(dict(command.names))
        self._secrets = known.texts()
        share = _ALL_CHARS // (_TEXTS_OF_COMMAND * max(1, len(commands)))
        self._most = max(_LEAST_CHARS, min(MOST_CHARS, share))

    def text(self, text: str) -> str:
        """Return a text, such as an error, redacted and shortened."""
        return self._cut("", redaction.redact_text(text, self._secrets))[1] if text else ""

    def printed(self, title: str, text: str) -> list[ShownText]:
        return [self._cut(title, redaction.redact_text(text, self._secrets))] if text.strip() else []

    def value(self, value: JsonValue) -> list[ShownText]:
        """Return a value as redacted and shortened texts.

        In an object, a text of several lines (code, SQL) becomes a separate text with its key as the title. The rest
        becomes one JSON text.
        """
        if value is None or value in ({}, []):
            return []
        value = redaction.redact_value(value, self._secrets)
        if isinstance(value, str):
            return [self._cut("", value)]
        texts: list[ShownText] = []
        if isinstance(value, dict):
            several = {name: text for name, text in value.items() if isinstance(text, str) and "\n" in text}
            value = {name: item for name, item in value.items() if name not in several}
            texts = [self._cut(name, text) for name, text in several.items()]
        if value or not texts:
            texts.append(self._cut("", json.dumps(value, indent=2, ensure_ascii=False)))
        return texts

    def _cut(self, title: str, text: str) -> ShownText:
        shown = visible(text[: self._most])
        return [title, shown] if len(text) <= self._most else [title, shown, len(text)]


def visible(text: str) -> str:
    """Replace control characters by their numbers, since a control character can make a name look like another name."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else f"\\u{{{ord(char):x}}}" for char in text)
