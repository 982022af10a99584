"""Values as the page shows them: redacted, converted to text and shortened."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from noetl_worker.authoring.run_page.run import ExecutionRun
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.secrets import redaction
from noetl_worker.text.secrets.known import KnownSecrets

MOST_CHARS: Final = 20_000
"""Most characters of one text. An event may have 100 kB, and a page with a thousand such texts would open slowly."""
_LEAST_CHARS: Final = 1_000
_ALL_CHARS: Final = 40_000_000
"""Approximate characters of a whole page when an execution has thousands of commands."""
_TEXTS_OF_COMMAND: Final = 3
ShownText: TypeAlias = list[Any]
"""A title, a text and, if the text was cut, its original number of characters."""


class ShownValues:
    """The values of executions on one page, ready to be shown."""

    def __init__(self, runs: Sequence[ExecutionRun], own_secrets: Iterable[str] = ()) -> None:
        """Collect the secrets named in the inputs of the executions and their commands, to redact them everywhere."""
        known, commands = KnownSecrets(tuple(own_secrets)), [command for run in runs for command in run.commands]
        for given in (*(run.workload for run in runs), *(command.input for command in commands)):
            known.add_inline(given)
        for command in commands:
            if command.tasks:  # what stands under these names is rendered into their inputs
                known.add_inline(dict(command.names))
        self._secrets = known.texts()
        share = _ALL_CHARS // (_TEXTS_OF_COMMAND * max(1, len(commands)))
        self._most = max(_LEAST_CHARS, min(MOST_CHARS, share))

    def text(self, text: str) -> str:
        """Return free text, such as an error, redacted and shortened."""
        return self._cut("", redaction.redact_text(text, self._secrets))[1] if text else ""

    def printed(self, title: str, text: str) -> list[ShownText]:
        return [self._cut(title, redaction.redact_text(text, self._secrets))] if text.strip() else []

    def value(self, value: JsonValue) -> list[ShownText]:
        """Return a value as JSON. Its multi-line texts (code, SQL, a page) are separate, under their own names."""
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
    """Replace control characters by their numbers. Some reverse the direction of text and so disguise a name."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else f"\\u{{{ord(char):x}}}" for char in text)
