"""The answer of a failed tool as one text, for the people who look at the failure."""

from __future__ import annotations

from typing import Final

from noetl_worker.models.wire import JsonValue
from noetl_worker.text.json_text import dumps

MAX_CHARS: Final = 8_192
"""Most characters kept of a text: more than is shown, since a secret must not be cut before it is found."""
PRINTED: Final = ("stdout", "stderr")
"""Names of what a tool printed, in its data."""


def begin_of_answer(data: JsonValue) -> str:
    """Return the beginning of a failed tool's data: of an answer its body, else the data as JSON."""
    if isinstance(data, dict):
        others = {name: value for name, value in data.items() if name not in PRINTED}
        data = data.get("data") or data.get("body") or others
    if data is None or data == {}:
        return ""
    text = data if isinstance(data, str) else dumps(data).decode(errors="replace").replace("\\u0000", "\ufffd")
    return text[:MAX_CHARS]
