"""The answer of a failed tool as one text, for the people who look at the failure."""

from __future__ import annotations

from typing import Final

from noetl_worker.models.wire import JsonValue
from noetl_worker.text.json_text import dumps

MAX_CHARS: Final = 8_192
"""Most characters of the text: more than is shown, since a secret that is cut would not be found."""
PRINTED: Final = ("stdout", "stderr")
"""Keys of a tool's data under which the printed output is."""


def answer_beginning(data: JsonValue) -> str:
    """Return the beginning of a failed tool's data as text: of the answer's body if there is one, else of the data.

    The tool's output is left out. A value that is not a text is written as JSON.
    """
    if isinstance(data, dict):
        others = {name: value for name, value in data.items() if name not in PRINTED}
        data = data.get("data") or data.get("body") or others
    if data is None or data == {}:
        return ""
    text = data if isinstance(data, str) else dumps(data).decode(errors="replace").replace("\\u0000", "\ufffd")
    return text[:MAX_CHARS]
