"""The Python plane's redaction of stored results: anything that looks like a secret becomes "[REDACTED]".

The rules come from the plane's source (`core/sanitize.py`, `core/credential_refs.py` as of May 2026). A recording
confirms one rule: a short text under `password` or `token` is kept (result-get-secret-like). The plane also removes the
names of the playbook's keychain from a stored value; this module does not, since it does not know these names.
"""

from __future__ import annotations

import re
from typing import Final

from noetl_worker.models.wire import JsonValue

REDACTED: Final = "[REDACTED]"
_MAX_DEPTH: Final = 20
"""Number of nested levels that are redacted. Deeper values are stored unchanged."""
_DROPPED: Final = "keychain"
_ALWAYS: Final = re.compile(
    "(?:proxy_)?authorization|www_authenticate|x_api_key|x_(?:auth|access)_token|(?:set_)?cookie",
)
_IN_KEYS: Final = re.compile(
    """
    auth|bearer|cert|credential|jwt|keychain|passwd|password|passphrase|pem|pwd|secret|token
    |api_?key|private_?key|ssh_?key|(?:gcp|azure|encryption|decrypt|master)_key|connection_?string
    """,
    re.VERBOSE,
)
_AT_START: Final = re.compile(
    r"""
    (?i:Bearer\s+\S | Basic\s+[A-Za-z0-9+/=])
    | eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$
    """,
    re.VERBOSE,
)
_KEY_OF_PROVIDER: Final = re.compile(
    r"""
    (?:^|["':\s])(?:
        sk-[A-Za-z0-9][A-Za-z0-9_-]{12} | AIza[A-Za-z0-9_-]{20} | ya29\.[A-Za-z0-9_-]
        | gh[pousr]_[A-Za-z0-9_]{20} | github_pat_[A-Za-z0-9_]{20} | xox[baprs]-[A-Za-z0-9-]{20}
    )
    """,
    re.VERBOSE,
)
_PRIVATE_KEY: Final = re.compile("-----BEGIN (?:(?:RSA|EC|DSA|OPENSSH) )?PRIVATE KEY-----")
_OF_LINK: Final = re.compile(
    r"[?&](?:(?:api[_-]?)?key|(?:(?:access|id|refresh)[_-]?)?token|client[_-]?secret|signature)=[^&\s]", re.IGNORECASE
)
_ADDRESS: Final = re.compile(r"://(?<=[A-Za-z0-9+.-]://)[^/@:\s]+(?::[^/@\s]*)?@\S")
_SECRETS: Final = (
    (("sk-", "AIza", "ya29.", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "xox"), _KEY_OF_PROVIDER),
    (("-----BEGIN ",), _PRIVATE_KEY),
    (("=",), _OF_LINK),
    (("://",), _ADDRESS),
)
"""Pairs of substrings and the pattern of a secret. Every match of the pattern contains one of the substrings. To save
time, a text is searched for the pattern only if the text contains one of the substrings."""


def as_stored(value: JsonValue, depth: int = 0) -> JsonValue:
    """Return the value as the plane stores it, with secrets replaced.

    Args:
        depth: number of levels above this value.
    """
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        return {name: _member(name, inner, depth) for name, inner in value.items() if name != _DROPPED}
    if isinstance(value, list) and depth < _MAX_DEPTH:
        return [as_stored(inner, depth + 1) for inner in value]
    return REDACTED if isinstance(value, str) and depth < _MAX_DEPTH and _is_secret(value) else value


def _member(name: str, value: JsonValue, depth: int) -> JsonValue:
    key = name.lower().replace("-", "_")
    if _ALWAYS.fullmatch(key) or (isinstance(value, (dict, list)) and _IN_KEYS.search(key)):
        return REDACTED
    return as_stored(value, depth + 1)


def _is_secret(text: str) -> bool:
    return _AT_START.match(text) is not None or any(
        any(word in text for word in words) and pattern.search(text) for words, pattern in _SECRETS
    )
