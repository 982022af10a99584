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
"""Largest number of characters shown of one value. A page with a thousand values of 100 kB would open slowly."""
_LEAST_CHARS: Final = 1_000
_ALL_CHARS: Final = 40_000_000
"""Approximate limit for the characters of all values on one execution page, divided equally among the commands."""
_TEXTS_OF_COMMAND: Final = 3
ShownText: TypeAlias = list[Any]
"""A value on the execution page: [title, text], or [title, text, original length] if the text was shortened."""


class ShownValues:
    """A converter of the values on one execution page: it redacts secrets, and shortens long texts."""

    def __init__(self, runs: Sequence[ExecutionRun], own_secrets: Iterable[str] = ()) -> None:
        """Collect the secrets in the inputs of executions and commands. These secrets are then redacted everywhere."""
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
        """Redact the secrets in a text, such as an error, and shorten it for the execution page."""
        return self._cut("", redaction.redact_text(text, self._secrets))[1] if text else ""

    def printed(self, title: str, text: str) -> list[ShownText]:
        return [self._cut(title, redaction.redact_text(text, self._secrets))] if text.strip() else []

    def value(self, value: JsonValue) -> list[ShownText]:
        """Return a value as redacted and shortened texts for the execution page.

        A string of several lines in an object (code, SQL) becomes a text of its own, titled by its key. The rest of the
        value becomes one JSON text.
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
    """Replace unprintable characters by escapes such as `\\u{202e}`, since they can make a name look like another."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else f"\\u{{{ord(char):x}}}" for char in text)
