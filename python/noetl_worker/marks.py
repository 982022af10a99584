"""What a claim may have in it, read from its bytes: a command without templates, references and secrets is not walked.

A mark too many costs time; one too few would send a template as text or a secret as data. So each is a search for the
shortest bytes that all forms of the thing share, and an escape that could hide them sets all marks.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["ALL", "Marks", "marks_of"]


class Marks(NamedTuple):
    """Whether something of a kind may be there; False is certain."""

    templates: bool = True
    """`{{`, `{%` or `{#` in a text."""
    references: bool = True
    """A field in the result store, or a keychain entry."""
    secrets: bool = True
    """A key that names a secret (`secrets`), or an address, which may have a password in it."""


ALL: Final = Marks()
_LONGEST: Final = 4_096
"""Bytes. Searching a longer claim costs more (13 us a kilobyte) than walking what can have a template or a secret."""
_ESCAPED: Final = b"\\u00"
"""How JSON may write any ASCII character, `{` and `p` too."""


def marks_of(body: bytes) -> Marks:
    """The marks of a JSON text. Keys and texts count alike, also those of JSON inside of a text."""
    if len(body) > _LONGEST or _ESCAPED in body:
        return ALL
    has_templates = b"{{" in body or b"{%" in body or b"{#" in body
    return Marks(has_templates, b"_ref" in body, _names_secrets(body.lower()))


def _names_secrets(lower: bytes) -> bool:
    """Each word and pair of words that redaction knows has one of these in it; a test compares.

    Written out: a loop over them takes three times as long as what it looks for.
    """
    return (
        (b"pass" in lower or b"pwd" in lower or b"cred" in lower or b"secret" in lower)
        or (b"token" in lower or b"auth" in lower or b"cookie" in lower or b"bearer" in lower)
        or (b"jwt" in lower or b"pem" in lower or b"cert" in lower or b"key" in lower)
        or (b"session" in lower or b"dsn" in lower or b"connection" in lower)
        or (b"://" in lower or b":\\/" in lower)
    )
