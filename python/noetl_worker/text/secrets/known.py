"""The secret texts of one command, in every form they may have (module `forms`).

The texts are grouped by where redaction replaces them: anywhere, as whole words, or only in texts for people. The
strength of a secret decides its group (module `strength`).

A credential's field is public if its name means an address or a user, such as `host`. The value of every other field is
secret: a new kind of credential must not leak because of an odd field name.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from noetl_worker.engine.pure.redact import DESCRIBING_WORDS, MARK, MIN_SECRET_CHARS, Named, holds_text, named_by
from noetl_worker.engine.short_keys import ByShortKey
from noetl_worker.errors import ConfigurationError
from noetl_worker.models.fit import SecretTexts
from noetl_worker.models.wire import JsonValue, is_larger
from noetl_worker.text.secrets.auth_alias import find_alias
from noetl_worker.text.secrets.forms import encoded_forms, key_lines, written_forms
from noetl_worker.text.secrets.strength import Strength, rate_strength

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PUBLIC_WORDS: Final = DESCRIBING_WORDS | frozenset({
    "account", "address", "audience", "bucket", "brokers", "catalog", "channel", "client", "container", "database",
    "databases", "db", "dbname", "domain", "driver", "email", "format", "group", "header", "host", "hostname",
    "hosts", "id", "ids", "index", "issuer", "label", "login", "mechanism", "mode", "namespace", "org",
    "organization", "owner", "port", "prefix", "project", "protocol", "provider", "queue", "region", "role", "schema",
    "server", "servers", "service", "source", "sslmode", "stage", "stream", "subject", "table", "tenant", "timeout",
    "topic", "user", "username", "warehouse", "zone",
})  # fmt: skip
"""Last words of the names of credential fields that are not secret, such as `host` or `username`. Results show the
values of these fields."""
_ALIAS_WORDS: Final = frozenset({"auth", "credential", "credentials", "authentication"})
"""Last words of the names of config fields whose text is an alias (`auth`, `pg_auth`). An alias is not secret, because
errors have to name the alias."""
_SCHEME: Final = re.compile(r"(?:Bearer|Basic|Token|ApiKey)[ \t]+(\S+)", re.IGNORECASE)
_AUTH_VALUES: Final = frozenset({"value", "key", "api_key"})
_USER_INFO: Final = re.compile(r"://[^/:@?#]*:(?!\d{1,5}/)(.+)", re.DOTALL)
"""Pattern of the password in the part of a URL before the last `@`. The password may contain a slash: such a URL is
invalid, and its error text would quote the password. Up to five digits before a slash are a port, not a password."""
_PARAMETER: Final = re.compile(r"[?&;]([\w.~-]+)=([^&;#\s\"'<>]+)")
"""Pattern of the name and value of a parameter in a URL's query. The value may be secret."""
_SIGNATURE_WORDS: Final = frozenset({"sig", "signature", "hmac"})
_MAYBE_SIGNATURES: Final = frozenset({"code", "key", "sign"})
"""Names of URL parameters that contain a key at some services and an ordinary word at others."""
_MIN_FLOAT_CHARS: Final = 6
"""Least characters of a decimal number that counts as a secret. Shorter numbers (0.25, 1.5) are in every result."""


MOST_OF_A_COMMAND: Final = 1_000
"""Largest number of different secrets of one command. All data that leaves the worker is searched for up to 80 forms of
each secret."""
_TOO_MANY: Final = (
    "this command has more than {:,} different secrets (its credentials, and all values under names like `password` or "
    "`token`), and the worker cannot look for more: give other names to fields that hold no secret, keep the secrets "
    "where the tool itself reads them (a file, a database), or divide them among several commands"
)


class _Meaning(NamedTuple):
    """Kind of value to expect in a config field, judged by the field's name: the name of a credential (alias), a
    secret, or several secrets."""

    is_alias: bool
    """True for a field such as `auth`. Its text is the name of a credential (alias), which is no secret. If its value
    is an object, the object may contain the credential itself, so `_add_auth` looks for secrets in the object."""
    is_secret: bool
    is_several: bool
    """True for a plural name such as `api_keys`: each text in the value is a secret, but a number is only a count."""


class KnownSecrets:
    """A growing set of the texts of one command that must not leave the worker.

    Measured: making the encoded forms of one secret takes 5 to 30 us. A thousand secrets make the redaction of a text
    or result 2 ms slower with the worker's engine in Rust. With its engine in Python the redaction is 5 ms slower, or
    40 ms for a large text.
    """

    def __init__(self, own: Sequence[str] = (), *, most: int | None = None) -> None:
        """Begin with the worker's own secrets. The limit `most` does not count the worker's own secrets.

        Args:
            own: the worker's own secrets, the same for every command of the process.
            most: largest number of the command's secrets. Adding one more raises ConfigurationError. None: no limit.
        """
        self._most, self._count = most, 0
        self._seen: dict[str, Strength] = {}
        self._new: list[str] = []
        self._texts = _texts_of_worker(tuple(own))
        self._found: _Found | None = None

    @property
    def has_any(self) -> bool:
        """True if this command has a secret."""
        return bool(self._seen)

    def texts(self) -> SecretTexts:
        """Return all texts to look for: the secrets themselves and their encoded forms."""
        if self._new:
            if self._found is None:  # made late, because most commands have no secrets of their own
                self._found = _Found(self._texts)
            for text in self._new:
                self._found.add(text, self._seen[text])
            self._new.clear()
            self._texts = self._found.texts()
        return self._texts

    def add(self, text: str) -> bool:
        """Add one secret. Return False if the secret is too weak to be replaced in data.

        Texts under four characters are ignored: replacing every "1" protects nothing.
        """
        found = [self._add_part(part) for part in _parts(text)]
        return bool(found) and all(found)

    def _add_part(self, text: str) -> bool:
        if text not in self._seen:
            strength = rate_strength(text)
            self._count += strength is not Strength.COMMON
            if self._most is not None and self._count > self._most:
                raise ConfigurationError(_TOO_MANY.format(self._most))
            self._seen[text] = strength
            self._new.append(text)
        return self._seen[text] in (Strength.WORDY, Strength.STRONG)

    def add_all(self, value: JsonValue) -> None:
        """Add every text and number inside `value` as a secret."""
        for scalar in _scalars(value):
            self.add(scalar)

    def add_credential(self, data: Mapping[str, JsonValue]) -> list[str]:
        """Add the values of a credential's fields as secrets. From a field that is not secret, such as `host`, add only
        the password or signature in a URL.

        Returns:
            The names of the fields with a weak secret. A weak secret looks like an ordinary word and is not replaced in
            data.
        """
        weak: list[str] = []
        for key, value in data.items():
            if _is_public(key):
                self._add_from_url(value)
            elif isinstance(value, Mapping):
                weak += [f"{key}.{inner}" for inner in self.add_credential(value)]
            elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
                weak += self.add_credential({f"{key}.{at}": item for at, item in enumerate(value)})
            elif isinstance(value, str):
                if not self.add(value) and (named_by(key) is not Named.NOTHING or key in _AUTH_VALUES):
                    weak.append(key)
            else:
                self.add_all(value)
        return weak

    def add_inline(self, config: object, *, most: int | None = None) -> bool:
        """Add the secrets that are written in a tool's config: `password: ...`, a header, a value in an `auth` object.

        An alias in the config is not added, because an alias is no secret.

        Args:
            config: any values; a dataclass counts as an object.
            most: most characters, object members and list items to search. None: no limit.

        Returns:
            False if the config has more than `most`. The secrets found until then are added.
        """
        waiting: list[tuple[str, Any]] = [("", config)]
        while waiting:
            name, value = waiting.pop()
            kind = type(value)
            if value is None or kind is bool:
                continue
            if most is not None and (kind is str or kind is dict or kind is list):
                most -= len(value)
                if most < 0:
                    return False
            if kind is str or kind is int or kind is float:
                self._add_named(name, value, is_text=kind is str)
            elif kind is dict or isinstance(value, Mapping):
                meaning = _MEANINGS[name]
                if meaning.is_alias:
                    self._add_auth(value)
                elif meaning.is_several:  # `api_keys: {github: ...}` has a secret under each name; numbers are counts
                    if most is not None and is_larger(value, most):
                        return False
                    self.add_credential({str(key): item for key, item in value.items() if holds_text(item)})
                waiting += [(str(key), item) for key, item in value.items()]
            elif kind is list or isinstance(value, (list, tuple)):
                waiting += [(name, item) for item in value]
            elif dataclasses.is_dataclass(kind):
                waiting += [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
            else:
                self._add_named(name, value, is_text=isinstance(value, str))
        return True

    def _add_named(self, name: str, value: Any, *, is_text: bool) -> None:
        meaning = _MEANINGS[name]
        if not meaning.is_alias and (meaning.is_secret or (meaning.is_several and is_text)):
            self.add_all(value)
        elif is_text and "://" in value:
            self._add_from_url(value)

    def _add_auth(self, auth: Mapping[Any, Any]) -> None:
        names_credential = find_alias(auth) is not None
        for key, value in auth.items():
            if key in _AUTH_VALUES and isinstance(value, str) and not (names_credential and key == "key"):
                self.add(value)

    def _add_from_url(self, value: JsonValue) -> None:
        """Add the password in `scheme://user:password@host`, and the signature in a URL's query."""
        for text in _scalars(value):
            if "://" in text:
                for word in text.split() if "@" in text else ():
                    if found := _USER_INFO.search(word.rpartition("@")[0]):
                        self.add(found.group(1))
                        self.add(unquote(found.group(1)))
                for parameter in _PARAMETER.finditer(text):
                    if _is_signature(*parameter.groups()):
                        self.add(parameter.group(2))
                        self.add(unquote(parameter.group(2)))


class _Found:
    """The texts that redaction searches for: all forms of all secrets, in order of addition and without duplicates."""

    def __init__(self, given: SecretTexts | None = None) -> None:
        given = given or SecretTexts()
        self._anywhere = dict.fromkeys(given.anywhere)
        self._words = dict.fromkeys(given.words)
        self._message_words = dict.fromkeys(given.message_words)

    def add(self, text: str, strength: Strength) -> None:
        written = dict.fromkeys(written_forms(text))
        if strength is Strength.SHORT:
            self._message_words.update(written)
        elif strength is not Strength.COMMON:
            (self._anywhere if strength is Strength.STRONG else self._words).update(written)
            self._anywhere.update(dict.fromkeys(encoded_forms(text)))
        for line in key_lines(text):
            if line != text.strip():
                self.add(line, rate_strength(line))

    def texts(self) -> SecretTexts:
        return SecretTexts(tuple(self._anywhere), tuple(self._words), tuple(self._message_words))


def _parts(text: str) -> Iterator[str]:
    """Yield a secret, and also the token in a secret such as `Bearer TOKEN`. A secret under four characters yields
    nothing."""
    if len(text.strip()) < MIN_SECRET_CHARS or text in MARK:
        return
    yield text
    header = _SCHEME.fullmatch(text.strip())
    if header is not None:
        yield from _parts(header.group(1))


@lru_cache(maxsize=8)  # the worker's secrets stay in memory anyway; a command's secrets must not stay in a cache
def _texts_of_worker(texts: tuple[str, ...]) -> SecretTexts:
    found = _Found()
    for text in texts:
        for part in _parts(text):
            found.add(part, rate_strength(part))
    return found.texts()


def _is_signature(name: str, value: str) -> bool:
    """Return True if a parameter in a URL's query is a secret, such as the signature of a signed URL. With an unclear
    name such as `key`, only a strong value counts as a secret."""
    last = _last_word(name)
    if last in _SIGNATURE_WORDS or named_by(name) is Named.SECRET:
        return True
    return last in _MAYBE_SIGNATURES and rate_strength(value) is Strength.STRONG


def _meaning(key: str) -> _Meaning:
    """Return what the name of a config field says about the field's value: the name of a credential (alias), a secret,
    or several secrets.

    A field named just `tokens` does not count as several secrets, because `tokens` may also be the ordinary words of a
    text. Results still hide the value of such a field, but other texts keep these words.
    """
    last, named = _last_word(key), named_by(key)
    is_several = last == "passwords" or (named is Named.SECRETS and key.lower() != "tokens")
    return _Meaning(last in _ALIAS_WORDS, named is Named.SECRET, is_several)


_MEANINGS: Final = ByShortKey(_meaning, most=4096)


def _is_public(key: str) -> bool:
    return _last_word(key) in _PUBLIC_WORDS and named_by(key) is Named.NOTHING


def _last_word(name: str) -> str:
    words = _WORD.findall(name)
    return words[-1].lower() if words else ""


def _scalars(value: JsonValue) -> Iterator[str]:
    """Yield the texts and numbers in a value, at any depth. Keys are not included."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, int) and not isinstance(item, bool):
            yield str(item)
        elif isinstance(item, float) and math.isfinite(item):
            yield from (text for text in _float_texts(item) if len(text) >= _MIN_FLOAT_CHARS)
        elif isinstance(item, Mapping):
            waiting += item.values()
        elif isinstance(item, (list, tuple)):
            waiting += item


def _float_texts(value: float) -> Iterator[str]:
    yield repr(value)
    if value.is_integer():  # templates, databases and JavaScript may write 48151623.0 without the point
        yield str(int(value))
