"""Redaction of secrets before they leave the worker: by key, by known value, by the shape of a credential.

Rust counterpart: rust/engine/src/redact.rs.

A key names a secret only by a whole word: the values of `author`, `concert` and `max_tokens` are kept. References stay
usable: inside a reference, only a string that equals a known secret is replaced (noetl#626). Redacting twice gives the
same as redacting once. Passwords in URLs are redacted last, because the replacements of the other rules may create a
URL that matches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import Final

from noetl_worker.engine.pure.secrets import MARK, MIN_SECRET_CHARS, Secrets, without_surrogates
from noetl_worker.engine.pure.wrapped import with_lines
from noetl_worker.engine.short_keys import ByShortKey
from noetl_worker.models.wire import JsonValue, texts_in

__all__ = ["MARK", "MIN_SECRET_CHARS", "Named", "Redactor", "holds_text", "named_by", "redact_text"]

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
# The value of a key with such a last word only describes a secret: token_type, secret_name, password_policy.
DESCRIBING_WORDS: Final = frozenset({
    "name", "names", "type", "types", "kind", "url", "uri", "endpoint", "count", "counts",
    "length", "limit", "limits", "size", "budget", "usage", "expires", "expiry", "expiration",
    "ttl", "at", "in", "required", "enabled", "policy", "method", "path", "file", "version",
    "scope", "scopes", "status",
})  # fmt: skip
# A token after one of these words is for pagination: a playbook needs it for the next page, and it gives no access.
_PAGING_WORDS: Final = frozenset({
    "page", "next", "prev", "previous", "continuation", "sync",
})  # fmt: skip

# `tokens` after one of these words are secrets; elsewhere they are pieces of a text, or the number of them.
_TOKEN_WORDS: Final = frozenset({
    "access", "refresh", "id", "auth", "oauth", "api", "bearer", "session", "csrf", "xsrf", "secret", "security",
    "personal", "private", "service", "user", "client", "device", "bot", "login", "deploy", "registration",
    "verification", "invite",
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
# The password in a URL, up to the last @ before the host: clients accept a password with an unescaped @.
_ADDRESS: Final = re.compile(r"(://[^/ \t\r\n:@?#]*:)([^/ \t\r\n@]+(?:@[^/ \t\r\n@\"'<>,;]+)*)(?=@)", re.ASCII)
_PROSE: Final = re.compile(r"[A-Za-z]?[a-z]*")
_ASSIGNMENT: Final = re.compile(
    r"\b((?:[Pp][Aa][Ss][Ss][Ww][Oo][Rr][Dd]|[Pp][Aa][Ss][Ss][Ww][Dd]|[Pp][Ww][Dd]"
    r"|[Pp][Aa][Ss][Ss][Pp][Hh][Rr][Aa][Ss][Ee]"
    r"|[Ss][Ee][Cc][Rr][Ee][Tt]|[Tt][Oo][Kk][Ee][Nn]|[Aa][Pp][Ii][_-]?[Kk][Ee][Yy]|access_token|client_secret)=)"
    r"((?:\"[^\"]*\"|'[^']*')[^ \t\r\n&;,'\"]*|[^ \t\r\n&;,'\"]+)",
    re.ASCII,
)


class Named(Enum):
    """Verdict on a key of a JSON object, from the key's name: whether the value under the key is a secret."""

    NOTHING = "nothing"
    SECRET = "secret"
    """Result for a key such as `password`: the value is a secret, even if it is a number."""
    SECRETS = "secrets"
    """Conclusion from a plural such as `access_tokens`: the value is a secret if it contains a string. The value `5` is
    only a count."""


def _named_by(key: str) -> Named:
    words = [word.lower() for word in _WORD.findall(key)]
    if not words or (len(words) > 1 and words[-1] in DESCRIBING_WORDS):
        return Named.NOTHING
    named = Named.NOTHING
    for previous, word, is_last in zip(["", *words], words, [*[False] * (len(words) - 1), True], strict=False):
        if _is_secret_word(previous, word) and not (word == "token" and previous in _PAGING_WORDS):
            return Named.SECRET
        single = word[:-1] if word[-1] == "s" else ""
        is_plain = single == "token" and not (is_last and previous in _TOKEN_WORDS)
        if _is_secret_word(previous, single) and not is_plain:
            named = Named.SECRETS
    return named


named_by: Final = ByShortKey(_named_by, most=4096).__getitem__
"""Function that returns the `Named` value of a key: whether the key names a secret. Results are cached."""


def _is_secret_word(previous: str, word: str) -> bool:
    return word in SENSITIVE_WORDS or (previous, word) in SENSITIVE_PAIRS


def holds_text(value: JsonValue) -> bool:
    """Return True if a JSON value is a string or contains one. Keys of objects do not count."""
    return next(texts_in(value), None) is not None


_REFERENCE_KINDS: Final = ("result_ref", "temp_ref")
# The only keys of a plain reference: it has no `extracted` and no preview.
_REFERENCE_FIELDS: Final = frozenset({
    "kind", "ref", "store", "scope", "meta", "correlation", "expires_at", "uri", "ipc",
})  # fmt: skip


def is_reference(value: JsonValue) -> bool:
    """Return True if a value is only a reference to a value in a store (protocol/command.md#python-plane).

    An object that also contains the stored value, or a preview of it, does not count.
    """
    if not isinstance(value, dict):
        return False
    if len(value) == 1 and "$noetl_ref" in value:
        return _is_keychain_entry(value["$noetl_ref"])
    if len(value) == 1 and "_ref" in value:
        return isinstance(value["_ref"], str) or _is_located(value["_ref"])
    return _is_located(value)


def _is_keychain_entry(value: JsonValue) -> bool:
    """Return True if `value`, found under the key `$noetl_ref`, refers to an entry of the keychain."""
    return isinstance(value, dict) and isinstance(value.get("kind"), str)


def _is_located(value: JsonValue) -> bool:
    """Return True if `value` is a reference to a stored result and contains no part of the result itself."""
    return (
        isinstance(value, dict)
        and value.get("kind") in _REFERENCE_KINDS
        and isinstance(value.get("ref"), str)
        and value.keys() <= _REFERENCE_FIELDS
    )


class Redactor:
    """Replacer of secrets in one document, for one set of known secrets. `count` is the number of replacements so
    far."""

    __slots__ = ("_is_free_text", "_is_in_reference", "_knows_only", "_secrets", "count")

    def __init__(
        self,
        secrets: Secrets,
        *,
        free_text: bool = False,
        known_only: bool = False,
    ) -> None:
        """Create a redactor for one document.

        Args:
            secrets: the known secrets.
            free_text: True for messages: the values of pairs such as `password=...` are replaced too. False for
                results, in which such a pair is data.
            known_only: True to replace known secrets only. Values under keys such as `password`, and strings that look
                like credentials, are then kept.
        """
        self.count = 0
        self._secrets = secrets
        self._is_free_text = free_text
        self._is_in_reference = False
        self._knows_only = known_only

    def text(self, text: str) -> str:
        """Return `text` with known secrets replaced, then strings that look like credentials."""
        if self._is_in_reference:
            if not self._secrets.include(text):
                return text
            self.count += 1
            return MARK
        if self._secrets.are_in(text):
            text, found = self._secrets.replace(text)
            self.count += found
        if self._knows_only:
            return text
        if _CREDENTIAL.search(text):
            text = _CREDENTIAL.sub(self._credential, text)
        if self._is_free_text:
            text = _ASSIGNMENT.sub(self._behind_its_name, text)
        return _ADDRESS.sub(self._behind_its_name, text) if "://" in text and "@" in text else text

    def value(self, root: JsonValue) -> JsonValue:
        """Return a redacted copy of a JSON value; the order of keys stays."""
        copy: list[JsonValue] = []
        waiting: list[tuple[JsonValue, JsonValue]] = [([root], copy)]
        while waiting:
            source, target = waiting.pop()
            if isinstance(source, dict):
                self._members(source, target, waiting)
            else:
                for element in source:
                    target.append(self._child(element, waiting))
        return copy[0]

    def _members(
        self,
        source: dict[str, JsonValue],
        target: dict[str, JsonValue],
        waiting: list[tuple[JsonValue, JsonValue]],
    ) -> None:
        for position, (key, value) in enumerate(source.items()):
            name = self._key(key, position)
            if key in _REFERENCE_KEYS and _is_kept(key, source):
                target[name] = self._located(value)
            elif self._hides(key, value):
                target[name] = MARK
                self.count += 1
            else:
                target[name] = self._child(value, waiting)

    def _located(self, value: JsonValue) -> JsonValue:
        """Return a copy of a reference to a stored value. Only strings that equal a known secret are replaced, so that
        the reference stays usable."""
        outside, self._is_in_reference = self._is_in_reference, True
        try:
            return self.value(value)
        finally:
            self._is_in_reference = outside

    def _hides(self, key: str, value: JsonValue) -> bool:
        """Return True if the whole value must be replaced because of its key, such as `password`. Null and booleans are
        never secret."""
        if self._knows_only or self._is_in_reference or value is None or isinstance(value, bool):
            return False
        named = named_by(key)
        if named is Named.NOTHING or (named is Named.SECRETS and not holds_text(value)):
            return False
        return not is_reference(value)

    def _child(self, value: JsonValue, waiting: list[tuple[JsonValue, JsonValue]]) -> JsonValue:
        if isinstance(value, (dict, list)):
            copy: JsonValue = {} if isinstance(value, dict) else []
            waiting.append((value, copy))
            return copy
        return self._scalar(value)

    def _scalar(self, value: JsonValue) -> JsonValue:
        if isinstance(value, str):
            return self.text(value)
        # A secret may be a number in the result (a PIN, an account id).
        if type(value) in (int, float) and self._secrets.include_number(value):
            self.count += 1
            return MARK
        return value

    def _key(self, key: str, position: int) -> str:
        """Return `key` unchanged, or a mark such as `[REDACTED]~2` if the key itself is or contains a secret. The
        position keeps the marks in one object distinct."""
        if not self._secrets.is_in_key(key):
            return key
        self.count += 1
        return f"{MARK}~{position}"

    def _credential(self, found: re.Match[str]) -> str:
        text = found.group()
        # "Basic authentication" is prose; the base64 of user and password is practically never one plain word.
        if text[:5].lower() == "basic" and _PROSE.fullmatch(text[5:].lstrip(" \t")):
            return text
        self.count += 1
        return MARK

    def _behind_its_name(self, found: re.Match[str]) -> str:
        if found.group(2) == MARK:
            return found.group()
        self.count += 1
        return found.group(1) + MARK


_REFERENCE_KEYS: Final = frozenset({"$noetl_ref", "_ref", "ref"})


def _is_kept(key: str, source: dict[str, JsonValue]) -> bool:
    """Return True if `source[key]` is a reference, which redaction must leave usable. `key` is one of
    `_REFERENCE_KEYS`."""
    value = source[key]
    if key == "ref" and source.get("kind") not in _REFERENCE_KINDS:
        return False
    return isinstance(value, str) or _is_located(value) or (key == "$noetl_ref" and _is_keychain_entry(value))


def redact_text(text: str, secrets: Sequence[str], words: Sequence[str] = ()) -> str:
    """Return free text (exception texts, log lines) with secrets replaced; see `protocol.Engine.redact_text`."""
    text = without_surrogates(text)
    return Redactor(with_lines(Secrets(secrets, words), [text]), free_text=True).text(text)
