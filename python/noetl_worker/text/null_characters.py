"""The character U+0000 in JSON, which no control plane can store.

Both planes keep results and variables in Postgres as JSONB, and JSONB refuses U+0000. A plane then answers 500
(recorded with the Rust plane 3.54.0: "unsupported Unicode escape sequence"), which looks like a passing fault. The
Python plane passes some values on without storing them. U+0000 in such a value stops the next command.

`plain_values.py` writes U+0000 in place of half a surrogate pair, so this module finds half pairs too.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from noetl_worker.models.wire import JsonValue
from noetl_worker.text import json_text
from noetl_worker.text.templates.redacted import members

NULL_MARK: Final = b"\\u0000"
"""JSON escape of U+0000. After one more backslash (`\\\\u0000`) the same bytes are ordinary text."""
_REPLACEMENT: Final = "\ufffd"
_BACKSLASH: Final = b"\\\\"
_NO_JSON: Final = b"\x00"
"""Byte that JSON never contains. This byte replaces each escaped backslash before JSON is searched for NULL_MARK."""
_MAX_PLACE_CHARS: Final = 200


def has_null(packed: bytes) -> bool:
    """Return True if a text or a key in this JSON contains U+0000."""
    return NULL_MARK in packed and NULL_MARK in packed.replace(_BACKSLASH, _NO_JSON)


def replace_null(text: str) -> str:
    return text.replace("\0", _REPLACEMENT)


class NullCharacters(NamedTuple):
    """Position of U+0000 in a JSON value, and the value without U+0000."""

    place: str
    """Path of the first text with U+0000, as a template writes the path: `data.rows[3].name`. The words "the key" come
    first if a key has U+0000."""
    without: JsonValue
    """The value with U+FFFD in place of each U+0000."""

    @classmethod
    def find(cls, packed: bytes) -> NullCharacters:
        marked = packed.replace(_BACKSLASH, _NO_JSON).replace(NULL_MARK, _REPLACEMENT.encode())
        place = replace_null(_null_in(json_text.loads(packed), "") or "")[:_MAX_PLACE_CHARS]
        return cls(place, json_text.loads_exact(marked.replace(_NO_JSON, _BACKSLASH)))

    @property
    def warning(self) -> str:
        replaced = f"U+0000 in {self.place} was replaced by U+FFFD"
        return f"{replaced}: no control plane can store U+0000; remove U+0000 in the step"

    def refusal(self, what: str) -> str:
        """Return an error text for a user: why no plane can store `what` (a result, a variable), and how to remove
        U+0000."""
        return (
            f"{what} has the character U+0000 in {self.place}, which no control plane can store: remove U+0000 in the "
            "step (shell: `| tr '\\0' '\\n'`, Python: `.replace(chr(0), '')`; base64 for bytes that are no text). Half "
            "of a surrogate pair becomes U+0000 too (Python: `.encode('utf-8', 'replace').decode()`)"
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
