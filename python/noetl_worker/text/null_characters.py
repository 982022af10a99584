"""The character U+0000 in JSON, which no control plane can store. `plain_values.py` writes it for half of a surrogate
pair.

Both planes keep results and variables in Postgres as JSONB, which refuses the character. They answer 500 (recorded with
the Rust plane 3.54.0: "unsupported Unicode escape sequence"), which looks like a passing fault. A value that the Python
plane passes on without storing it stops the next command.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from noetl_worker.models.wire import JsonValue
from noetl_worker.text import json_text
from noetl_worker.text.templates.redacted import members

NULL_MARK: Final = b"\\u0000"
"""Escape of the character in JSON. After an escaped backslash the same bytes are ordinary text."""
_REPLACEMENT: Final = "\ufffd"
_BACKSLASH: Final = b"\\\\"
_NO_JSON: Final = b"\x00"
"""Byte that JSON never contains. It takes the place of escaped backslashes during the search."""
_MAX_PLACE_CHARS: Final = 200


def has_null(packed: bytes) -> bool:
    """Return True if a text or a key in this JSON contains U+0000."""
    return NULL_MARK in packed and NULL_MARK in packed.replace(_BACKSLASH, _NO_JSON)


def replace_null(text: str) -> str:
    return text.replace("\0", _REPLACEMENT)


class NullCharacters(NamedTuple):
    """The finding of U+0000 in a JSON value."""

    place: str
    """Place of the first U+0000, written as in a template: data.rows[3].name."""
    without: JsonValue
    """The value with U+FFFD in place of each U+0000."""

    @classmethod
    def find(cls, packed: bytes) -> NullCharacters:
        marked = packed.replace(_BACKSLASH, _NO_JSON).replace(NULL_MARK, _REPLACEMENT.encode())
        place = replace_null(_null_in(json_text.loads(packed), "") or "")[:_MAX_PLACE_CHARS]
        return cls(place, json_text.loads_exact(marked.replace(_NO_JSON, _BACKSLASH)))

    @property
    def warning(self) -> str:
        return f"U+0000 in {self.place} is U+FFFD here: no control plane can store it"

    def refusal(self, what: str) -> str:
        """Return why `what` (a result, a variable) cannot be stored, and what to do."""
        return (
            f"{what} has the character U+0000 in {self.place}, which no control plane can store: take it out in the "
            "step (shell: `| tr '\\0' '\\n'`, Python: `.replace(chr(0), '')`; base64 for what is no text). Half of a "
            "surrogate pair becomes one (Python: `.encode('utf-8', 'replace').decode()`)"
        )


def _null_in(value: JsonValue, path: str) -> str | None:
    if isinstance(value, str):
        return (path or "its text") if "\0" in value else None
    for key, child, place in members(value, path):
        if "\0" in str(key):
            return f"the key {place}"
        if found := _null_in(child, place):
            return found
    return None
