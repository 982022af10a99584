"""The secret texts of one command, in every form they may leave in (`forms`), by where they are taken out
(`strength`).

What a credential holds is secret unless its name says that it is an address: a new kind of credential must not leak
because its field has an odd name.
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
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.secrets.auth_alias import alias_of
from noetl_worker.text.secrets.forms import encoded_forms, lines_of, written_forms
from noetl_worker.text.secrets.strength import Strength, strength_of

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PUBLIC_WORDS: Final = DESCRIBING_WORDS | frozenset({
    "account", "address", "audience", "bucket", "brokers", "catalog", "channel", "client", "container", "database",
    "databases", "db", "dbname", "domain", "driver", "email", "format", "group", "header", "host", "hostname",
    "hosts", "id", "ids", "index", "issuer", "label", "login", "mechanism", "mode", "namespace", "org",
    "organization", "owner", "port", "prefix", "project", "protocol", "provider", "queue", "region", "role", "schema",
    "server", "servers", "service", "source", "sslmode", "stage", "stream", "subject", "table", "tenant", "timeout",
    "topic", "user", "username", "warehouse", "zone",
})  # fmt: skip
"""Last words of a credential's field that say where or who, not with what: they stay readable in results."""
_ALIAS_WORDS: Final = frozenset({"auth", "credential", "credentials", "authentication"})
"""In a tool's config a text under such a name (`auth`, `pg_auth`) is an alias, which errors have to name."""
_SCHEME: Final = re.compile(r"(?:Bearer|Basic|Token|ApiKey)[ \t]+(\S+)", re.IGNORECASE)
_AUTH_VALUES: Final = frozenset({"value", "key", "api_key"})
_USER_INFO: Final = re.compile(r"://[^/:@?#]*:(?!\d{1,5}/)(.+)", re.DOTALL)
"""Of a word up to its last `@`. More than `redact` takes for a password in free text: in a config one with a slash in
it is a mistake, which the error text would quote. Digits before a slash are a port."""
_PARAMETER: Final = re.compile(r"[?&;]([\w.~-]+)=([^&;#\s\"'<>]+)")
"""Of an address's query."""
_SIGNATURE_WORDS: Final = frozenset({"sig", "signature", "hmac"})
_MAYBE_SIGNATURES: Final = frozenset({"code", "key", "sign"})
"""Parameters that hold a key at some services and a plain word at others."""
_MIN_FLOAT_CHARS: Final = 6
"""Shorter numbers with a point (0.25, 1.5) are in every result, and no secrets."""


MOST_OF_A_COMMAND: Final = 1_000
"""Different secrets of one command. Its forms, up to 80 for each, are looked for in all that leaves."""
_TOO_MANY: Final = (
    "this command has more than {:,} different secrets (its credentials, and what stands under names like `password` "
    "or `token`), and the worker looks for no more: name fields otherwise that hold no secret, keep the secrets where "
    "the tool itself reads them (a file, a database), or give each command a part of them"
)


class _Meaning(NamedTuple):
    """Of a name in a config."""

    is_alias: bool
    """A text names a credential; an object says which, or has it."""
    is_secret: bool
    is_several: bool
    """A text is one; of an object each text is."""


class KnownSecrets:
    """A growing set of texts that must not leave the worker.

    Measured: the forms of one take 5 to 30 us, once; then each text or result that is looked through takes 2 ms for
    each thousand secrets (5 ms on the Python engine, 40 ms for a large one), and its own time by its size alone.
    """

    def __init__(self, own: Sequence[str] = (), *, most: int | None = None) -> None:
        """Begin with the secrets of the worker, the same for every command of the process, which do not count.

        `most`: with one more, whoever adds it is told so by a ConfigurationError. None: for what is only shown.
        """
        self._most, self._count = most, 0
        self._seen: dict[str, Strength] = {}
        self._new: list[str] = []
        self._texts = _texts_of_worker(tuple(own))
        self._found: _Found | None = None

    @property
    def has_any(self) -> bool:
        """Whether one was found for this command."""
        return bool(self._seen)

    def texts(self) -> SecretTexts:
        """Every text to look for: the secrets themselves and their encoded forms."""
        if self._new:
            if self._found is None:  # most commands have none of their own
                self._found = _Found(self._texts)
            for text in self._new:
                self._found.add(text, self._seen[text])
            self._new.clear()
            self._texts = self._found.texts()
        return self._texts

    def add(self, text: str) -> bool:
        """One secret. False when there is too little in it: it stays in data.

        Texts under four characters are not kept at all: replacing every "1" protects nothing.
        """
        found = [self._add_part(part) for part in _parts(text)]
        return bool(found) and all(found)

    def _add_part(self, text: str) -> bool:
        if text not in self._seen:
            strength = strength_of(text)
            self._count += strength is not Strength.COMMON
            if self._most is not None and self._count > self._most:
                raise ConfigurationError(_TOO_MANY.format(self._most))
            self._seen[text] = strength
            self._new.append(text)
        return self._seen[text] in (Strength.WORDY, Strength.STRONG)

    def add_all(self, value: JsonValue) -> None:
        """Every text and number inside `value`."""
        for scalar in _scalars(value):
            self.add(scalar)

    def add_credential(self, data: Mapping[str, JsonValue]) -> list[str]:
        """What a credential holds, but for its addresses; and the password inside of an address.

        Returns:
            The fields whose secret has too little in it to be distinguished from a word.
        """
        weak: list[str] = []
        for key, value in data.items():
            if _is_public(key):
                self._add_of_address(value)
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

    def add_inline(self, config: object) -> None:
        """What a tool's own config names as secret: `password: ...`, a header, an `auth` object; not an alias."""
        waiting: list[tuple[str, Any]] = [("", config)]
        while waiting:  # all of it: its size is bounded by the command's
            name, value = waiting.pop()
            kind = type(value)
            if value is None or kind is bool:
                continue
            if kind is str or kind is int or kind is float:
                self._add_named(name, value, is_text=kind is str)
            elif kind is dict or isinstance(value, Mapping):
                meaning = _MEANINGS[name]
                if meaning.is_alias:
                    self._add_auth(value)
                elif meaning.is_several:  # `api_keys: {github: ...}`: one under each name; numbers are counts
                    self.add_credential({str(key): item for key, item in value.items() if holds_text(item)})
                waiting += [(str(key), item) for key, item in value.items()]
            elif kind is list or isinstance(value, (list, tuple)):
                waiting += [(name, item) for item in value]
            elif dataclasses.is_dataclass(kind):
                waiting += [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
            else:
                self._add_named(name, value, is_text=isinstance(value, str))

    def _add_named(self, name: str, value: Any, *, is_text: bool) -> None:
        meaning = _MEANINGS[name]
        if not meaning.is_alias and (meaning.is_secret or (meaning.is_several and is_text)):
            self.add_all(value)
        elif is_text and "://" in value:
            self._add_of_address(value)

    def _add_auth(self, auth: Mapping[Any, Any]) -> None:
        names_credential = alias_of(auth) is not None
        for key, value in auth.items():
            if key in _AUTH_VALUES and isinstance(value, str) and not (names_credential and key == "key"):
                self.add(value)

    def _add_of_address(self, value: JsonValue) -> None:
        """The password of `scheme://user:password@host`, and what signs an address: nobody else can use it without."""
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
    """The texts to look for, each once, in the order they were found."""

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
        for line in lines_of(text):
            if line != text.strip():
                self.add(line, strength_of(line))

    def texts(self) -> SecretTexts:
        return SecretTexts(tuple(self._anywhere), tuple(self._words), tuple(self._message_words))


def _parts(text: str) -> Iterator[str]:
    """The text, if it is long enough to be looked for, and what follows the scheme when it is a header's value."""
    if len(text.strip()) < MIN_SECRET_CHARS or text in MARK:
        return
    yield text
    header = _SCHEME.fullmatch(text.strip())
    if header is not None:
        yield from _parts(header.group(1))


@lru_cache(maxsize=8)  # they stay in memory anyway; a command's secrets must not outlive it in a cache
def _texts_of_worker(texts: tuple[str, ...]) -> SecretTexts:
    found = _Found()
    for text in texts:
        for part in _parts(text):
            found.add(part, strength_of(part))
    return found.texts()


def _is_signature(name: str, value: str) -> bool:
    """Whether a parameter opens what is at an address: by its name, by its value where that can be either."""
    last = _last_word(name)
    if last in _SIGNATURE_WORDS or named_by(name) is Named.SECRET:
        return True
    return last in _MAYBE_SIGNATURES and strength_of(value) is Strength.STRONG


def _meaning(key: str) -> _Meaning:
    """What stands under a name in a config.

    Bare `tokens` may be the words of a text: its results are hidden, but no word is taken out everywhere for it.
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
    """Texts and numbers, at any depth; keys are not values."""
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
    if value.is_integer():  # a template, a database or JavaScript writes 48151623.0 without its point
        yield str(int(value))
