"""Resolution of credential aliases and keychain references to secrets, just before the tool runs.

A secret never enters a stored context. A secret that cannot be resolved never becomes an empty text: the command fails
with an error that names the secret. A missing keychain entry is an exception: a reference to it gives null, and in a
template its name is undefined. A secret given to a tool is redacted in everything that leaves the worker, unless the
secret is too weak: a short text or a common word.

A cached secret is given only to commands with the same cache key. The key of a credential contains the execution's id,
because the plane may have another secret of this alias for another execution. The key of a keychain entry contains the
id of the catalog entry. For the scopes `local` and `shared`, the key also contains the execution's id
(protocol/executions.md#credentials: the plane's own cache keys).
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any, Final, TypeVar

import structlog

from noetl_worker.errors import AuthRefused, ControlPlaneError, CredentialError
from noetl_worker.models.command import Command
from noetl_worker.models.wire import JsonValue, fields_of, texts_in
from noetl_worker.process.threads import off_loop
from noetl_worker.remote.plane.client import Plane, if_there
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.remote.plane.patience import COMMAND_TRIES, is_passing, retry_while_passing
from noetl_worker.settings.patterns import matches
from noetl_worker.text.secrets.credential_cache import Fetched, Key
from noetl_worker.text.secrets.known import MOST_OF_A_COMMAND, KnownSecrets
from noetl_worker.text.templates.sandbox import MissingSecret, RequiredSecret, SecretEntry
from noetl_worker.text.templates.template import has_template

T = TypeVar("T")
_log = structlog.get_logger("noetl_worker.credentials")
_ALLOW: Final = "NOETL_WORKER_CREDENTIALS_ALLOW"
_REFERENCE_KEY: Final = "$noetl_ref"
_SCOPES: Final = ("global", "local", "shared")
"""Scopes of keychain entries, in the order in which the worker asks the plane. A playbook's entries are global by
default (recorded: keychain-set)."""
_KEYCHAIN: Final = re.compile(r"""\bkeychain\s*(?:\.\s*([A-Za-z_][A-Za-z0-9_]*)|\[\s*(["'])([^"']+)\2\s*\])""")


class CommandCredentials:
    def __init__(self, command: Command, plane: Plane) -> None:
        self._command = command
        self._plane = plane
        self._cache = plane.client.credential_cache
        self._used: set[Key] = set()
        self.known = KnownSecrets(plane.client.own_secrets, most=MOST_OF_A_COMMAND)

    def keep(self, text: str) -> bool:
        """Remember a secret that a tool fetched itself, so that it is redacted. Return False if the secret is too weak
        to be redacted."""
        return self.known.add(text)

    def forget(self) -> None:
        """Drop the cached secrets after a server refused a tool's login with these secrets. The next command asks the
        plane again."""
        self._cache.forget(self._used)

    async def credential(self, alias: str) -> Mapping[str, JsonValue]:
        """Return the data of the credential with this alias, including the credential's `type`.

        Raises:
            CredentialError: the credential is missing or not allowed by the operator (final), or the plane cannot be
                asked (retryable).
        """
        if not alias.strip():
            raise CredentialError("the alias of a credential is empty: name a registered credential in `auth`")
        await self._check_allowed(alias)
        command = self._command

        async def fetch() -> Fetched:
            record = await _asked(
                f"credential {alias!r}",
                lambda: self._plane.credential(alias, execution_id=command.execution_id),
                command,
            )
            data = record.get("data")
            if not isinstance(data, dict) or not data:
                raise CredentialError(f"credential {alias!r} has no data: register it again with its `data` object")
            return Fetched({"type": record.get("type"), **data}, _lifetime_s(record, data))

        found: dict[str, JsonValue] = await self._get(
            ("credential", self._plane.url, alias, command.execution_id), fetch
        )
        self._warn_of_weak("credential", alias, self.known.add_credential(found))
        return found

    async def resolve_references(self, value: JsonValue) -> JsonValue:
        """Return `value` with each {"$noetl_ref": {"kind": "keychain", ...}} replaced by its secret
        (protocol/command.md#python-plane)."""
        size = self._command.size
        references = await off_loop(size, partial(_references_in, value))
        secrets = {id(reference): await self._referred(reference) for reference in references}
        return await off_loop(size, partial(_with_secrets, value, secrets)) if secrets else value

    async def keychain_values(self, names: set[str]) -> dict[str, JsonValue]:
        """Return the value of the variable `keychain` in templates. In it, a missing keychain entry is undefined
        (`MissingSecret`). Other undefined variables may render to an empty string; this one never does.

        Args:
            names: the keychain entries that the templates name.
        """
        entries = {name: await self._entry(name) for name in sorted(names)}
        there = {name: item for name, item in entries.items() if item is not None}
        return SecretEntry(
            {name: SecretEntry(item, name) if isinstance(item, dict) else item for name, item in there.items()},
            "",
            missing=frozenset(entries.keys() - there.keys()),
            required=RequiredSecret if self._is_by_credentials else MissingSecret,
        )

    @property
    def _is_by_credentials(self) -> bool:
        return RULES[self._command.dialect].keychain_is_credentials

    async def _check_allowed(self, alias: str) -> None:
        """Raise CredentialError unless the operator allows the alias for the command's playbook."""
        allowed = self._plane.client.credentials_allow
        if allowed is None:
            return
        path = await self._playbook_path(alias)
        fitting = [aliases for paths, aliases in allowed.items() if path is not None and matches(path, [paths])]
        if any(matches(alias, aliases) for aliases in fitting):
            return
        whose = f"the playbook {path!r}" if path is not None else "a playbook whose path the control plane does not say"
        raise CredentialError(
            f"credential {alias!r} is not allowed for {whose}: {_ALLOW} allows this playbook "
            f"{', '.join(chain.from_iterable(fitting)) or 'no credential'}. Name an allowed credential, or have the "
            f"operator add {path or 'PATH'}={alias}",
            code="credential_not_allowed",
        )

    async def _playbook_path(self, alias: str) -> str | None:
        catalog_id = self._command.catalog_id
        if catalog_id is None:
            return None

        async def fetch() -> Fetched:
            what = f"the path of catalog entry {catalog_id}, which {_ALLOW} needs for credential {alias!r},"
            entry = await _asked(what, lambda: if_there(self._plane.catalog_entry(catalog_id)), self._command)
            path = (entry or {}).get("path")
            return Fetched(path, None) if isinstance(path, str) else Fetched(None, 0)

        found: str | None = await self._cache.get(("playbook_path", self._plane.url, catalog_id), fetch)
        return found

    async def _referred(self, reference: Mapping[str, Any]) -> JsonValue:
        name, field = str(reference.get("name")), reference.get("field")
        if reference.get("kind") != "keychain":
            kind = reference.get("kind")
            raise CredentialError(f"a secret reference has the unknown kind {kind!r}: use the kind keychain")
        entry = await self._entry(name)
        if entry is None:
            return None
        return entry if field is None else SecretEntry(entry if isinstance(entry, dict) else {}, name).field(str(field))

    async def _entry(self, name: str) -> JsonValue:
        """Return the value of the keychain entry `name`. If the plane has no such entry, log a warning and return None.
        Raise CredentialError for an entry without a usable value."""
        if self._is_by_credentials:
            return await self._entry_by_credentials(name)
        command = self._command
        catalog_id = command.catalog_id
        if catalog_id is None:
            raise CredentialError(
                f"keychain entry {name!r}: the command has no catalog_id to look it up with: register the playbook, "
                "and start it from the catalog"
            )
        status: JsonValue = None
        for scope in _SCOPES:
            owner = None if scope == "global" else command.execution_id
            key: Key = ("keychain", self._plane.url, catalog_id, name, scope, owner)
            found = await self._get(key, lambda scope=scope: self._keychain(catalog_id, name, scope))  # type: ignore[misc]
            if found["status"] == "success":
                token = found["token"]
                weak = self.known.add_credential(token if isinstance(token, dict) else {"token": token})
                self._warn_of_weak("keychain entry", name, weak)
                return token
            status = found["status"] if status in (None, "not_found") else status
        if status == "not_found":
            self._warn_of_missing(name, "define it in the playbook's keychain section")
            return None
        raise CredentialError(
            f"keychain entry {name!r} is {status}: define it anew in the playbook's section keychain",
            code="keychain_entry",
        )

    async def _entry_by_credentials(self, name: str) -> JsonValue:
        """Return the credential `name` as a keychain entry, for a plane whose keychain entries are credentials. If the
        plane has no such credential, log a warning and return None.

        The request names the execution. So the plane first looks for an entry of kind `credential` in the execution's
        keychain, and then for any registered credential of this name. The operator must allow the name, as for every
        credential.
        """
        try:
            return dict(await self.credential(name))
        except CredentialError as error:
            if error.code != "credential_not_found":
                raise
        advice = (
            "this plane has no entries of kind static: register a credential, and declare the keychain entry with "
            "`kind: credential`"
        )
        self._warn_of_missing(name, advice)
        return None

    def _warn_of_missing(self, name: str, advice: str) -> None:
        _log.warning("keychain_entry_missing", entry=name, **self._command.log_ids(), advice=advice)

    def _warn_of_weak(self, what: str, name: str, fields: list[str]) -> None:
        """Log that a secret is too weak to be redacted, once per name and worker. Results may show such a secret."""
        named = self._plane.client.weak_secrets
        if fields and (what, name) not in named:
            named.add((what, name))
            _log.warning(
                "weak_secret",
                of=f"{what} {name!r}",
                fields=fields,
                **self._command.log_ids(),
                problem="the secret looks like a common word or is too short, so it is not taken out of results",
                advice="use a random text of at least 12 characters",
            )

    async def _keychain(self, catalog_id: str, name: str, scope: str) -> Fetched:
        answer = await _asked(
            f"keychain entry {name!r}",
            lambda: self._plane.keychain(catalog_id, name, scope=scope, execution_id=self._command.execution_id),
            self._command,
        )
        token = answer.get("token_data")
        if answer.get("status") != "success" or token in (None, "", {}, []):
            status = "empty" if answer.get("status") == "success" else answer.get("status")
            return Fetched({"status": status}, 0)  # a negative answer is never cached
        return Fetched({"status": "success", "token": token}, _lifetime_s(answer, token))

    async def _get(self, key: Key, fetch: Callable[[], Awaitable[Fetched]]) -> Any:
        self._used.add(key)
        return await self._cache.get(key, fetch)


async def _asked(what: str, call: Callable[[], Awaitable[T]], command: Command) -> T:
    """Ask the plane for a secret or a catalog entry, and return the plane's answer. Retry after a temporary error.

    Args:
        what: name of the object that is asked for. The error's text begins with this name.

    Raises:
        CredentialError: the plane refuses, or gives no usable answer. The error is retryable if the same command may
            succeed later.
    """

    async def once() -> T:
        try:
            return await call()
        except AuthRefused as error:
            # The plane has just accepted the worker's token for the claim, so it refuses this secret only.
            text = f"{what} is refused by the control plane: {error}: give the worker's token the right to read it"
            raise CredentialError(text, code="credential_refused") from error

    try:
        return await retry_while_passing(what, once, max_tries=COMMAND_TRIES, ids=command.log_ids)
    except ControlPlaneError as error:
        text = f"{what} cannot be fetched: {error}: see the control plane's log, then run the step again"
        raise CredentialError(text, retryable=is_passing(error), code="credential_unavailable") from error


def _references_in(value: JsonValue) -> list[Mapping[str, Any]]:
    """Return every reference to a keychain entry in a JSON value."""
    found: list[Mapping[str, Any]] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            reference = item.get(_REFERENCE_KEY)
            if isinstance(reference, dict):
                found.append(reference)
            else:
                waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return found


def _with_secrets(value: JsonValue, secrets: Mapping[int, JsonValue]) -> JsonValue:
    """Return a copy of a JSON value with each keychain reference replaced by its secret.

    Args:
        secrets: the secrets by the Python `id()` of the reference.
    """
    if isinstance(value, dict):
        reference = value.get(_REFERENCE_KEY)
        if isinstance(reference, dict):
            return secrets[id(reference)]
        return {key: _with_secrets(item, secrets) for key, item in value.items()}
    return [_with_secrets(item, secrets) for item in value] if isinstance(value, list) else value


def keychain_names_in(value: JsonValue) -> set[str] | None:
    """Return the names of the keychain entries that the templates in `value` use, as `keychain.name` or
    `keychain["a name"]`. Return None if no template mentions the keychain.

    An entry's name that a template computes is not found here, and the template then fails.
    """
    if next(_templates(value), None) is None:
        return None
    return {found.group(1) or found.group(3) for text in _templates(value) for found in _KEYCHAIN.finditer(text)}


def _templates(value: JsonValue) -> Iterator[str]:
    return (text for text in texts_in(value) if "keychain" in text and has_template(text))


def _lifetime_s(record: Mapping[str, Any], data: JsonValue) -> float | None:
    """Return the seconds for which a secret is still valid, or None if unknown. If both the plane's record and the
    secret's data have an expiry time, the earlier time counts."""
    ttl_s = record.get("ttl_seconds")  # preferred: a wrong local clock does not matter
    of_record = float(ttl_s) if isinstance(ttl_s, (int, float)) else _seconds_left(record.get("expires_at"))
    of_secret = _seconds_left(fields_of(data).get("expires_at"))
    return min((left_s for left_s in (of_record, of_secret) if left_s is not None), default=None)


def _seconds_left(moment: JsonValue) -> float | None:
    """Return the seconds from now until an ISO 8601 string or a Unix time (seconds or milliseconds), or None for other
    values."""
    if isinstance(moment, str):
        try:
            parsed = datetime.datetime.fromisoformat(moment.replace("Z", "+00:00"))
        except ValueError:
            return None
        moment = (parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.timezone.utc)).timestamp()
    if isinstance(moment, bool) or not isinstance(moment, (int, float)):
        return None
    return float(moment / 1000 if moment > 1e11 else moment) - time.time()
