"""A quick search of JSON bytes for signs of templates, references and secrets. Each of the three is a mark (a bit).

A superfluous mark only costs time. A missing mark would leave a template unrendered, or a secret unredacted. So each
search is for the shortest bytes common to all spellings. An escape that could hide these bytes sets all marks.
"""

from __future__ import annotations

from typing import Final

from noetl_worker.engine.protocol import REFERENCES, SECRETS, TEMPLATES

_ESCAPED: Final = b"\\u00"
"""Beginning of an escaped ASCII character in JSON, such as `\\u007b` for `{`, which could hide a template or secret."""


def find_marks(data: bytes) -> int:
    """Return bits that tell what a JSON text may contain: TEMPLATES, REFERENCES, SECRETS. If a bit is not set, the text
    certainly lacks that content (`protocol.Engine.find_marks`)."""
    lower = data.lower()
    if _ESCAPED in lower:
        return TEMPLATES | REFERENCES | SECRETS
    templates = TEMPLATES if b"{{" in lower or b"{%" in lower or b"{#" in lower else 0
    references = REFERENCES if b"_ref" in lower else 0
    return templates | references | (SECRETS if _names_secrets(lower) else 0)


def _names_secrets(lower: bytes) -> bool:
    """Return True if a text may contain a secret: under a key that names a secret, or as a password in a URL.

    Each key name that redaction treats as secret contains one of the substrings below; a test checks this. The
    substrings are written out, because a loop over a list takes three times as long.
    """
    return (
        (b"pass" in lower or b"pwd" in lower or b"cred" in lower or b"secret" in lower)
        or (b"token" in lower or b"auth" in lower or b"cookie" in lower or b"bearer" in lower)
        or (b"jwt" in lower or b"pem" in lower or b"cert" in lower or b"key" in lower)
        or (b"session" in lower or b"dsn" in lower or b"connection" in lower)
        or (b"://" in lower or b":\\/" in lower)
    )
