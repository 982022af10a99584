"""The beginning of a failed tool's data as text. The worker sends this text to the plane together with the outcome, for
people who look for the cause of the failure."""

from __future__ import annotations

from typing import Final

from noetl_worker.models.wire import JsonValue
from noetl_worker.text.json_text import dumps

MAX_CHARS: Final = 8_192
"""Largest number of characters that `answer_beginning` returns. A report cuts the text shorter, but only after
redaction, since redaction would not find half a secret."""
_PRINTED: Final = ("stdout", "stderr")
"""Keys of a tool's data that have the output of the tool's process."""


def answer_beginning(data: JsonValue) -> str:
    """Return the beginning of a failed tool's data as text of at most MAX_CHARS characters. People read the text to
    find the cause of the failure.

    The text is the field `data`, else the field `body`, else all fields except `stdout` and `stderr`. A value that is
    not a text is written as JSON.
    """
    if isinstance(data, dict):
        others = {name: value for name, value in data.items() if name not in _PRINTED}
        data = data.get("data") or data.get("body") or others
    if data is None or data == {}:
        return ""
    text = data if isinstance(data, str) else dumps(data).decode(errors="replace").replace("\\u0000", "\ufffd")
    return text[:MAX_CHARS]
