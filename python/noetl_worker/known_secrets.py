"""The secret texts of one command, in every form they may leave in.

What a credential holds is secret unless its name says that it is an address: a new kind of credential must not leak
because its field has an odd name. Each secret is also known as JSON, URL and hex text and inside base64, and long
lines of a key file one by one.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote

from noetl_worker.engine.pure.redact import DESCRIBING_WORDS, MARK, MIN_SECRET_CHARS, is_sensitive_key
from noetl_worker.errors import CredentialError
from noetl_worker.models import JsonValue

__all__ = ["KnownSecrets"]

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
_USER_INFO: Final = re.compile(r"://[^/\s:@?#]*:(?!\d{1,5}/)(\S+)@")
"""More than `redact` takes for a password in free text: in a config one with a slash in it is a mistake, which the
error text would quote. Digits before a slash are a port."""
_LINE_CHARS: Final = 16
_MIN_ENCODED: Final = 8
"""Shorter encoded pieces (base64, hex) turn up by chance."""
_MAX_SECRETS: Final = 2_000


class KnownSecrets:
    """A growing set of texts that must not leave the worker."""

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._forms: tuple[str, ...] | None = ()

    def forms(self) -> tuple[str, ...]:
        """Every text to look for: the secrets themselves and their encoded forms."""
        if self._forms is None:
            found: dict[str, None] = {}
            for text in sorted(self._texts):
                found.update(dict.fromkeys(_forms(text)))
            self._forms = tuple(found)
        return self._forms

    def add(self, text: str) -> None:
        """One secret. Texts under four characters are not kept: replacing every "1" protects nothing."""
        if len(text.strip()) < MIN_SECRET_CHARS or text in MARK or text in self._texts:
            return
        if len(self._texts) >= _MAX_SECRETS:
            raise CredentialError(f"a command with over {_MAX_SECRETS} secret texts: its results cannot be made safe")
        self._texts.add(text)
        self._forms = None
        header = _SCHEME.fullmatch(text.strip())
        if header is not None:
            self.add(header.group(1))

    def add_all(self, value: JsonValue) -> None:
        """Every text and number inside `value`."""
        for scalar in _scalars(value):
            self.add(scalar)

    def add_credential(self, data: Mapping[str, JsonValue]) -> None:
        """What a credential holds, but for its addresses; and the password inside of an address."""
        for key, value in data.items():
            if _is_public(key):
                self._add_of_address(value)
            elif isinstance(value, Mapping):
                self.add_credential(value)
            elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
                self.add_credential({f"{key}.{at}": item for at, item in enumerate(value)})
            else:
                self.add_all(value)

    def add_inline(self, config: object) -> None:
        """What a tool's own config names as secret: `password: ...`, a header, an `auth` object; not an alias."""
        waiting: list[tuple[str, Any]] = [("", config)]
        while waiting:  # all of it: its size is bounded by the command's
            name, value = waiting.pop()
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                waiting += [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
            elif isinstance(value, Mapping):
                if _last_word(name) in _ALIAS_WORDS:
                    self._add_auth(value)
                waiting += [(str(key), item) for key, item in value.items()]
            elif isinstance(value, (list, tuple)):
                waiting += [(name, item) for item in value]
            elif is_sensitive_key(name) and _last_word(name) not in _ALIAS_WORDS:
                self.add_all(value)
            elif isinstance(value, str) and "://" in value:
                self._add_of_address(value)

    def _add_auth(self, auth: Mapping[Any, Any]) -> None:
        names_one = auth.get("source") == "credential" or "credential" in auth
        for key, value in auth.items():
            if key in _AUTH_VALUES and isinstance(value, str) and not (names_one and key == "key"):
                self.add(value)

    def _add_of_address(self, value: JsonValue) -> None:
        """The password of `scheme://user:password@host`, and a query (a signed address is a secret by itself)."""
        for text in _scalars(value):
            for found in _USER_INFO.finditer(text):
                self.add(found.group(1))
                self.add(unquote(found.group(1)))
            if "://" in text and "?" in text:
                self.add(text.partition("?")[2])


def _is_public(key: str) -> bool:
    return _last_word(key) in _PUBLIC_WORDS and not is_sensitive_key(key)


def _last_word(name: str) -> str:
    words = _WORD.findall(name)
    return words[-1].lower() if words else ""


def _scalars(value: JsonValue) -> Iterator[str]:
    """Texts and whole numbers, at any depth; keys are not values."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, int) and not isinstance(item, bool):
            yield str(item)
        elif isinstance(item, Mapping):
            waiting += item.values()
        elif isinstance(item, (list, tuple)):
            waiting += item


def _forms(text: str) -> Iterator[str]:
    yield text
    yield text.strip()
    yield quote(text, safe="", errors="replace")
    yield quote_plus(text, errors="replace")
    yield repr(text)[1:-1]  # how a KeyError, a traceback and a log of arguments quote it
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    for line in text.splitlines():
        if len(line.strip()) >= _LINE_CHARS and not line.startswith("-----"):
            yield line.strip()
    raw = text.encode("utf-8", "replace")
    encoded = [raw.hex(), raw.hex().upper(), *_base64_cores(raw)]
    yield from (form for form in encoded if len(form) >= _MIN_ENCODED)


def _base64_cores(raw: bytes) -> Iterator[str]:
    """The part of the base64 text that holds `raw` alone, for each of the three places it may start at."""
    for shift in range(3):
        start = (shift * 8 + 5) // 6  # the first digit with no bit of what stands before
        end = (shift + len(raw)) * 8 // 6  # digits after it share bits with what follows
        core = base64.b64encode(b"\0" * shift + raw + b"\0\0").decode()[start:end]
        yield core
        yield core.replace("+", "-").replace("/", "_")
