"""DuckDB secrets made from `auth`, so that credentials reach ATTACH and s3:// paths without being in any SQL text.

A secret lives as long as the command's database is open; DuckDB shows it redacted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.credential import DATABASE_FIELDS, credential_data, first_given, written_data


@dataclass(frozen=True, slots=True)
class DuckdbSecret:
    """A DuckDB secret made from one credential. `repr` does not show its `values`."""

    name: str
    kind: str
    extension: str
    values: Mapping[str, str] = field(repr=False)

    def statement(self) -> str:
        """Return the CREATE SECRET statement. Never show this statement: the text contains the secret values."""
        options = "".join(f", {option} {quoted(value)}" for option, value in self.values.items())
        return f'CREATE OR REPLACE TEMPORARY SECRET "{self.name}" (TYPE {self.kind}{options})'

    def redacted_error(self, text: str) -> str:
        """Return DuckDB's error text with this secret's values replaced by `***`."""
        for option in _HIDDEN & self.values.keys():
            text = text.replace(quoted(self.values[option]), "***").replace(self.values[option], "***")
        return text


_EXTENSION: Final = re.compile(r"(?P<name>[a-z0-9_]+)(?: +from +(?P<source>[a-z0-9_]+))?", re.IGNORECASE)
_HIDDEN: Final = frozenset({"PASSWORD", "SECRET", "SESSION_TOKEN", "BEARER_TOKEN", "TOKEN"})
_DATABASE: Final = {part.upper(): fields for part, fields in DATABASE_FIELDS.items()}
_STORE: Final = {
    "KEY_ID": ("key_id", "access_key_id", "aws_access_key_id", "access_key", "hmac_key_id"),
    "SECRET": ("secret", "secret_key", "secret_access_key", "aws_secret_access_key", "hmac_secret"),
    "SESSION_TOKEN": ("session_token", "aws_session_token"),
    "REGION": ("region", "aws_region"),
    "ENDPOINT": ("endpoint", "endpoint_url"),
    "URL_STYLE": ("url_style",),
    "USE_SSL": ("use_ssl",),
    "SCOPE": ("scope",),
}
_TYPES: Final[Mapping[str, tuple[str, str, Mapping[str, tuple[str, ...]]]]] = {
    "postgres": ("postgres", "postgres", _DATABASE),
    "mysql": ("mysql", "mysql", _DATABASE),
    "gcs": ("gcs", "httpfs", _STORE),
    "s3": ("s3", "httpfs", _STORE),
    "r2": ("r2", "httpfs", {**_STORE, "ACCOUNT_ID": ("account_id",)}),
    "http": ("http", "httpfs", {"BEARER_TOKEN": ("token", "bearer_token"), "SCOPE": ("scope",)}),
    "huggingface": ("huggingface", "httpfs", {"TOKEN": ("token",)}),
}
"""Type of a credential -> (type of the DuckDB secret, extension that defines this type, options). Options map each
option of CREATE SECRET to the credential fields that may have its value."""
_OTHER_WORDS: Final = {
    "postgresql": "postgres",
    "gcs_hmac": "gcs",
    "hmac": "gcs",
    "gs": "gcs",
    "aws": "s3",
    "minio": "s3",
    "bearer": "http",
    "bearer_token": "http",
}
_MARKS: Final = ("source", "key", "name", "service", "secret_name", "scope", "fields", "inject", "type", "credential")
"""Fields of a single credential. An `auth` object with text in any of these fields is one credential. Any other object
maps names to credentials (protocol/tasks.md#fields)."""


def check_secrets(kind: str, auth: str | Mapping[str, Any] | None) -> None:
    """Check the credentials that are written out in `auth`, for a config model's `__post_init__`. An alias is not
    checked here, because its credential is fetched later.

    Raises:
        ConfigurationError: a value is not a credential, or one name has several credentials. Or DuckDB has no secret
            for a credential's type, or the credential has none of the fields that this secret can use.
    """
    for name, given in _named(kind, auth).items():
        written = written_data(given)
        if written is not None:
            _made(kind, name, written)


async def fetch_secrets(kind: str, auth: str | Mapping[str, Any] | None, context: ToolContext) -> list[DuckdbSecret]:
    """Return the DuckDB secrets for the credentials in `auth`.

    "alias" gives one secret of that name. {"pg_db": {"source": "credential", "key": "alias"}, ...} gives one secret for
    each name.

    Raises:
        ConfigurationError: DuckDB has no secret for a credential's type, or the credential has none of the fields that
            this secret can use.
        CredentialError: an alias does not resolve.
    """
    return [await _secret(kind, name, given, context) for name, given in _named(kind, auth).items()]


def _named(kind: str, auth: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return name of a DuckDB secret -> its credential (an alias or an object), for each credential in `auth`. Raise
    ConfigurationError for a value that is not a credential."""
    if auth is None:
        return {}
    several = isinstance(auth, Mapping) and not any(isinstance(auth.get(mark), str) for mark in _MARKS)
    named: Mapping[str, Any] = auth if several and isinstance(auth, Mapping) else {_secret_name(auth): auth}
    for name, given in named.items():
        if not isinstance(given, (str, Mapping)):
            raise ConfigurationError(
                f"auth {name!r} must be an alias or an object, not {type(given).__name__}",
                field=f"auth.{name}",
                tool=kind,
            )
    return {str(name): given for name, given in named.items()}


def _secret_name(auth: str | Mapping[str, Any]) -> str:
    if isinstance(auth, str):
        return auth
    named = (auth.get(mark) for mark in ("secret_name", "name", "credential", "key"))
    return next((str(name) for name in named if name), "noetl")


async def _secret(kind: str, name: str, auth: Any, context: ToolContext) -> DuckdbSecret:
    made = _made(kind, name, await credential_data(kind, auth, context))
    for option in _HIDDEN & made.values.keys():
        context.secrets.keep(made.values[option])
    return made


def _made(kind: str, name: str, data: Mapping[str, Any]) -> DuckdbSecret:
    word = str(data.get("service") or data.get("type") or "").lower()
    word = _OTHER_WORDS.get(word, word)
    if word not in _TYPES:
        known = ", ".join(sorted(_TYPES))
        raise ConfigurationError(f"{kind}: auth {name!r} is of type {word!r}; DuckDB has secrets for {known}")
    duckdb_type, extension, options = _TYPES[word]
    found = {option: first_given(data, fields) for option, fields in options.items()}
    values = {option: _text(value) for option, value in found.items() if value is not None}
    if not values:
        wanted = ", ".join(fields[0] for fields in options.values())
        raise ConfigurationError(f"{kind}: auth {name!r} has no field of a {word} credential: give {wanted}")
    return DuckdbSecret(re.sub(r"\W", "_", name), duckdb_type, extension, values)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def quoted(value: str) -> str:
    """Return the value as a quoted SQL string."""
    return "'" + value.replace("'", "''") + "'"


def parse_extension(kind: str, wanted: str) -> tuple[str, str]:
    """Return the name and the FROM clause of an extension. `spatial` has the clause "", `h3 from community` the clause
    ` FROM community`.

    Raises:
        ConfigurationError: `wanted` is not a name.
    """
    match = _EXTENSION.fullmatch(wanted.strip())
    if match is None:
        raise ConfigurationError(
            f"extension {wanted!r} is no name; write `name` or `name from repository`", field="extensions", tool=kind
        )
    return match["name"], f" FROM {match['source']}" if match["source"] else ""
