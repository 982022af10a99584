"""Credential aliases and keychain references, resolved at the last moment, and the secret values they held.

A secret never enters a persisted context; an alias that does not resolve is a failed command that names it
(production-lessons 17). Every secret value handed to a tool is remembered for the redaction of its result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from noetl_worker.control_plane.client import Plane
from noetl_worker.errors import ControlPlaneError, CredentialError
from noetl_worker.models import Command, JsonValue
from noetl_worker.patience import until_it_passes

__all__ = ["CommandCredentials"]

_REFERENCE_KEY: Final = "$noetl_ref"
_SECRET_WORDS: Final = (
    "password",
    "passwd",
    "token",
    "secret",
    "key",
    "passphrase",
    "credential",
    "authorization",
    "pwd",
    "dsn",
    "connection_string",
    "cookie",
    "sas",
)
_MAX_TRIES: Final = 6
_MIN_SECRET_CHARS: Final = 4
"""Shorter values would take ordinary words out of results."""


class CommandCredentials:
    """The credentials of one command."""

    def __init__(self, command: Command, plane: Plane) -> None:
        self._command = command
        self._plane = plane
        self.secrets: set[str] = set()

    def keep_secret(self, text: str) -> None:
        """Remember a secret that a tool got by itself."""
        if text:
            self.secrets.add(text)

    async def credential(self, alias: str) -> Mapping[str, JsonValue]:
        """The data of a credential alias, with its `type`.

        Raises:
            CredentialError: there is none (final), or the plane cannot be asked (retryable).
        """
        try:
            record = await until_it_passes(
                f"credential {alias}",
                lambda: self._plane.credential(alias, self._command.execution_id),
                max_tries=_MAX_TRIES,
            )
        except CredentialError:
            raise
        except ControlPlaneError as error:
            raise CredentialError(
                f"credential {alias!r} cannot be fetched: {error}", retryable=error.is_retryable
            ) from error
        data = record.get("data")
        if not isinstance(data, dict):
            raise CredentialError(f"credential {alias!r} has no data: register it again with its `data` object")
        self.secrets.update(_secret_values(data))
        return {"type": record.get("type"), **data}

    async def resolve_references(self, value: JsonValue) -> JsonValue:
        """`value` with every {"$noetl_ref": {"kind": "keychain", ...}} replaced by its secret (wire.md 5.1)."""
        if isinstance(value, dict):
            reference = value.get(_REFERENCE_KEY)
            if isinstance(reference, dict):
                return await self._keychain_field(reference)
            return {key: await self.resolve_references(item) for key, item in value.items()}
        if isinstance(value, list):
            return [await self.resolve_references(item) for item in value]
        return value

    async def keychain_names(self, names: set[str]) -> dict[str, JsonValue]:
        """name -> token data, for templates that read `keychain.<name>.<field>`."""
        return {name: await self._entry(name) for name in sorted(names)}

    async def _keychain_field(self, reference: Mapping[str, Any]) -> JsonValue:
        name, field = str(reference.get("name")), reference.get("field")
        if reference.get("kind") != "keychain":
            raise CredentialError(f"a secret reference of kind {reference.get('kind')!r}: only keychain is known")
        entry = await self._entry(name)
        if field is None:
            return entry
        if not isinstance(entry, dict) or field not in entry:
            raise CredentialError(f"keychain entry {name!r} has no field {field!r}")
        return entry[field]

    async def _entry(self, name: str) -> JsonValue:
        if self._command.catalog_id is None:
            raise CredentialError(f"keychain entry {name!r}: the command carries no catalog_id to look it up with")
        try:
            catalog_id = self._command.catalog_id
            answer = await until_it_passes(
                f"keychain {name}",
                lambda: self._plane.keychain(catalog_id, name, execution_id=self._command.execution_id),
                max_tries=_MAX_TRIES,
            )
        except ControlPlaneError as error:
            raise CredentialError(
                f"keychain entry {name!r} cannot be fetched: {error}", retryable=error.is_retryable
            ) from error
        if answer.get("status") != "success":
            raise CredentialError(
                f"keychain entry {name!r} is {answer.get('status')}: define it in the playbook's keychain section"
            )
        data = answer.get("token_data")
        self.secrets.update(_all_texts(data))
        return data


def _secret_values(data: Mapping[str, JsonValue]) -> Iterator[str]:
    for key, value in data.items():
        if any(word in key.lower() for word in _SECRET_WORDS):
            yield from _all_texts(value)
        elif isinstance(value, dict):
            yield from _secret_values(value)
        elif isinstance(value, list):
            yield from (text for item in value if isinstance(item, dict) for text in _secret_values(item))


def _all_texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        if len(value) >= _MIN_SECRET_CHARS:
            yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _all_texts(item)
