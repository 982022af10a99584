"""What must not leave the worker: by key, by known value, by the shape of a credential.

Twin: rust/engine/src/redact.rs.

Keys are judged by whole words (production-lessons B10, lesson 16): `author`, `concert` and `max_tokens` stay.
Reference placeholders stay usable: nothing but known secrets is replaced in them (noetl#626).
Redacting twice changes nothing more: addresses come last, since the other rules may leave a part of one behind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from noetl_worker.models import JsonValue

__all__ = ["MARK", "MIN_SECRET_CHARS", "Redactor", "is_sensitive_key", "redact_text"]

MARK: Final = "[REDACTED]"

MIN_SECRET_CHARS: Final = 4
"""A shorter known secret is not searched for: replacing every "1" would destroy the result, not protect it."""

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

SENSITIVE_WORDS: Final = frozenset({
    "password", "passwords", "passwd", "passphrase", "pwd", "pgpassword", "creds", "secret", "secrets", "token", "auth",
    "authorization", "authentication", "credential", "credentials", "cookie", "cookies", "bearer",
    "jwt", "pem", "cert", "apikey", "accesskey", "secretkey", "privatekey", "authtoken",
    "accesstoken", "refreshtoken", "sessionid", "dsn",
})  # fmt: skip
SENSITIVE_PAIRS: Final = frozenset(
    {
        ("api", "key"),
        ("access", "key"),
        ("account", "key"),
        ("client", "key"),
        ("encryption", "key"),
        ("private", "key"),
        ("signing", "key"),
        ("ssh", "key"),
        ("pass", "word"),
        ("session", "id"),
        ("connection", "string"),
    }
)
# A last word that describes the secret instead of holding it: token_type, secret_name, password_policy, token_url.
DESCRIBING_WORDS: Final = frozenset({
    "name", "names", "type", "types", "kind", "url", "uri", "endpoint", "count", "counts",
    "length", "limit", "limits", "size", "budget", "usage", "expires", "expiry", "expiration",
    "ttl", "at", "in", "required", "enabled", "policy", "method", "path", "file", "version",
    "scope", "scopes", "status",
})  # fmt: skip
# Pagination: a playbook needs the value to fetch the next page, and it opens nothing.
_PAGING_WORDS: Final = frozenset({
    "page", "next", "prev", "previous", "continuation", "sync",
})  # fmt: skip

_CREDENTIAL: Final = re.compile(
    r"\b(?:[Bb]earer|BEARER)[ \t]+[A-Za-z0-9._~+/=-]{6,}"
    r"|\b(?:[Bb]asic|BASIC)[ \t]+[A-Za-z0-9+/]{8,}={0,2}"
    r"|\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*"
    r"|-----BEGIN [A-Z0-9 ]{1,64}-----(?s:.*?)(?:-----END [A-Z0-9 ]{1,64}-----|\Z)"
    r"|\bsk-[A-Za-z0-9_-]{16,}"
    r"|\bgh[opsur]_[A-Za-z0-9]{16,}"
    r"|\bgithub_pat_[A-Za-z0-9_]{16,}"
    r"|\bAIza[A-Za-z0-9_-]{16,}"
    r"|\bya29\.[A-Za-z0-9._-]{8,}"
    r"|\bxox[abeoprs]-[A-Za-z0-9-]{8,}",
    re.ASCII,
)
# The password of an address, up to the last @ before the host: one in it need not be escaped to be sent.
_ADDRESS: Final = re.compile(r"(://[^/ \t\r\n:@?#]*:)([^/ \t\r\n@]+(?:@[^/ \t\r\n@\"'<>,;]+)*)@", re.ASCII)
_PROSE: Final = re.compile(r"[A-Za-z]?[a-z]*")
_ASSIGNMENT: Final = re.compile(
    r"\b((?:[Pp][Aa][Ss][Ss][Ww][Oo][Rr][Dd]|[Pp][Aa][Ss][Ss][Ww][Dd]|[Pp][Ww][Dd]"
    r"|[Pp][Aa][Ss][Ss][Pp][Hh][Rr][Aa][Ss][Ee]"
    r"|[Ss][Ee][Cc][Rr][Ee][Tt]|[Tt][Oo][Kk][Ee][Nn]|[Aa][Pp][Ii][_-]?[Kk][Ee][Yy]|access_token|client_secret)=)"
    r"((?:\"[^\"]*\"|'[^']*')[^ \t\r\n&;,'\"]*|[^ \t\r\n&;,'\"]+)",
    re.ASCII,
)


@lru_cache(maxsize=4096)
def is_sensitive_key(key: str) -> bool:
    """Whether a key names a secret: a whole word or pair of words of the tables, unless the last word describes it."""
    words = [word.lower() for word in _WORD.findall(key)]
    if not words or (len(words) > 1 and words[-1] in DESCRIBING_WORDS):
        return False
    previous = ""
    for word in words:
        if word in SENSITIVE_WORDS and not (word == "token" and previous in _PAGING_WORDS):
            return True
        if (previous, word) in SENSITIVE_PAIRS:
            return True
        previous = word
    return False


def is_reference(value: JsonValue) -> bool:
    """Whether an object stands for a value kept elsewhere (wire.md 5.1)."""
    if type(value) is not dict:
        return False
    return "$noetl_ref" in value or "_ref" in value or ("ref" in value and value.get("kind") in _REFERENCE_KINDS)


_REFERENCE_KINDS: Final = ("result_ref", "temp_ref")


class Redactor:
    """Redaction with one set of known secrets. Counts what it replaced; one per document."""

    __slots__ = ("_is_free_text", "_knows_only", "_secrets", "count")

    def __init__(self, secrets: Sequence[str], *, free_text: bool = False, known_only: bool = False) -> None:
        """`free_text`: the value of `password=...` and its like is replaced too; results are data and keep it.

        `known_only`: neither names nor shapes are judged.
        """
        self.count = 0
        self._secrets = _Secrets(secrets)
        self._is_free_text = free_text
        self._knows_only = known_only

    def text(self, text: str) -> str:
        """Replace known secrets, then what looks like a credential."""
        if self._secrets.are_in(text):
            text, found = self._secrets.replace(text)
            self.count += found
        if self._knows_only:
            return text
        if _CREDENTIAL.search(text):
            text = _CREDENTIAL.sub(self._credential, text)
        if self._is_free_text:
            text = _ASSIGNMENT.sub(self._assignment, text)
        return _ADDRESS.sub(self._address, text) if "://" in text and "@" in text else text

    def value(self, root: JsonValue) -> JsonValue:
        """Return a redacted copy of a JSON value; the order of keys stays."""
        if type(root) not in (dict, list):
            return self._scalar(root)
        copy: JsonValue = {} if type(root) is dict else []
        waiting: list[tuple[JsonValue, JsonValue]] = [(root, copy)]
        while waiting:
            source, target = waiting.pop()
            if type(source) is dict:
                self._members(source, target, waiting)
            else:
                for element in source:
                    target.append(self._child(element, waiting))
        return copy

    def _members(
        self,
        source: dict[str, JsonValue],
        target: dict[str, JsonValue],
        waiting: list[tuple[JsonValue, JsonValue]],
    ) -> None:
        keeps = _kept_keys(source)
        for position, (key, value) in enumerate(source.items()):
            name = self._key(key, position)
            if key in keeps:
                target[name] = self._located(value)
            elif self._hides(key, value):
                target[name] = MARK
                self.count += 1
            else:
                target[name] = self._child(value, waiting)

    def _located(self, value: JsonValue) -> JsonValue:
        """What a reference says; nothing but known secrets is replaced in it."""
        outside, self._knows_only = self._knows_only, True
        try:
            return self.value(value)
        finally:
            self._knows_only = outside

    def _hides(self, key: str, value: JsonValue) -> bool:
        """Whether the whole value goes because of its name; null and booleans hold no secret."""
        if self._knows_only or value is None or type(value) is bool:
            return False
        return is_sensitive_key(key) and not is_reference(value)

    def _child(self, value: JsonValue, waiting: list[tuple[JsonValue, JsonValue]]) -> JsonValue:
        if type(value) is dict or type(value) is list:
            copy: JsonValue = {} if type(value) is dict else []
            waiting.append((value, copy))
            return copy
        return self._scalar(value)

    def _scalar(self, value: JsonValue) -> JsonValue:
        if type(value) is str:
            return self.text(value)
        # A secret that is a number in the result (a PIN, an account id) is the secret all the same.
        if type(value) is int and self._secrets.include(str(value)):
            self.count += 1
            return MARK
        return value

    def _key(self, key: str, position: int) -> str:
        """A secret inside a key is replaced too; the position keeps two such keys apart."""
        if not self._secrets.are_in(key):
            return key
        text, found = self._secrets.replace(key)
        self.count += found
        return f"{text}~{position}"

    def _credential(self, found: re.Match[str]) -> str:
        text = found.group()
        # "Basic authentication" is prose; a base64 pair of user and password practically never is one plain word.
        if text[:5].lower() == "basic" and _PROSE.fullmatch(text[5:].lstrip(" \t")):
            return text
        self.count += 1
        return MARK

    def _address(self, found: re.Match[str]) -> str:
        if found.group(2) == MARK:
            return found.group()
        self.count += 1
        return f"{found.group(1)}{MARK}@"

    def _assignment(self, found: re.Match[str]) -> str:
        if found.group(2) == MARK:
            return found.group()
        self.count += 1
        return found.group(1) + MARK


_NOTHING_KEPT: Final[frozenset[str]] = frozenset()
_REFERENCE_KEYS: Final = frozenset({"$noetl_ref", "_ref"})
_LOCATED_KEYS: Final = frozenset({"$noetl_ref", "_ref", "ref"})


def _kept_keys(source: dict[str, JsonValue]) -> frozenset[str]:
    if "$noetl_ref" not in source and "_ref" not in source and "ref" not in source:
        return _NOTHING_KEPT
    return _LOCATED_KEYS if source.get("kind") in _REFERENCE_KINDS else _REFERENCE_KEYS


class _Secrets:
    """Known secrets of one call. No compiled pattern: `re` would keep it, and the secrets in it, for the process."""

    __slots__ = ("_values",)

    def __init__(self, secrets: Sequence[str]) -> None:
        # A piece of the mark cannot be told from the mark.
        long_enough = {_whole(secret) for secret in secrets if len(secret) >= MIN_SECRET_CHARS and secret not in MARK}
        self._values = sorted(long_enough, key=len, reverse=True)

    def are_in(self, text: str) -> bool:
        return any(secret in text for secret in self._values)

    def include(self, text: str) -> bool:
        return text in self._values

    def replace(self, text: str) -> tuple[str, int]:
        """Replace from left to right; at one place the longest secret wins. Returns (text, how many)."""
        pieces: list[str] = []
        start = 0
        while True:
            # min() takes the first of equal places, and longer secrets come first.
            found = [(at, secret) for secret in self._values if (at := text.find(secret, start)) >= 0]
            if not found:
                pieces.append(text[start:])
                return MARK.join(pieces), len(pieces) - 1
            at, secret = min(found, key=lambda place: place[0])
            pieces.append(text[start:at])
            start = at + len(secret)


def _whole(text: str) -> str:
    """Replace halves of surrogate pairs by `?`: a file name in an exception's text may hold some."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def redact_text(text: str, secrets: Sequence[str]) -> str:
    """Redact free text (exception texts, log lines); see `protocol.Engine.redact_text`."""
    return Redactor(secrets, free_text=True).text(_whole(text))
