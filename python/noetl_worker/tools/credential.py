"""Resolving the `auth` of a config to the data of a credential, for every kind (protocol/tasks.md#fields)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.text.secrets.auth_alias import ALIAS_FIELDS, find_alias
from noetl_worker.tools.contract import ToolContext

DATABASE_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "host": ("db_host", "host", "hostname"),
    "port": ("db_port", "port"),
    "database": ("db_name", "database", "dbname", "db"),
    "user": ("db_user", "user", "username"),
    "password": ("db_password", "password"),
}
"""Part of a database's address -> the names of credential fields that hold it."""
_SEVERAL: Final = "auth holds several credentials; name the one to use: auth: <alias>"


async def credential_data(kind: str, auth: str | Mapping[str, Any] | None, context: ToolContext) -> dict[str, Any]:
    """Return the data of `auth`, which is an alias, an object that names one, or the data itself.

    An object's other fields override the credential's. An object {"anything": {...}} with one entry stands for that
    entry.
    """
    if auth is None:
        return {}
    try:
        one = auth if isinstance(auth, str) else _single(auth)
    except ConfigurationError as error:
        raise error.within(kind) from None
    return await merged_data(one, context)


async def merged_data(auth: str | Mapping[str, Any], context: ToolContext) -> dict[str, Any]:
    """Return the data of `auth`. An object stands for one credential, whatever is nested in it."""
    if isinstance(auth, str):
        return dict(await context.secrets.credential(auth))
    alias = find_alias(auth)
    if alias is None:
        return dict(auth)
    rest = {name: value for name, value in auth.items() if name not in ALIAS_FIELDS and value is not None}
    return {**await context.secrets.credential(str(alias)), **rest}


def written_data(auth: str | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the data that is written in the playbook itself, or None if `auth` names a credential, which is not
    fetched yet.

    Raises:
        ConfigurationError: `auth` has several credentials.
    """
    if auth is None:
        return {}
    if isinstance(auth, str):
        return None
    credential = _single(auth)
    return credential if find_alias(credential) is None else None


def first_given(found: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return the first value in `found` under one of these names that is neither null nor empty."""
    return next((found[name] for name in names if found.get(name) not in (None, "", [])), None)


def given_values(fields: Any, found: Mapping[str, Any], table: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return name -> value for each name in `table`: the config's own field, or else the credential's field under a
    listed spelling. A name without a value is left out."""
    own = {name: getattr(fields, name, None) for name in table}
    values = {name: first_given(found, table[name]) if value is None else value for name, value in own.items()}
    return {name: value for name, value in values.items() if value is not None}


def _single(auth: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = [value for value in auth.values() if isinstance(value, Mapping)]
    if not nested or len(nested) != len(auth):
        return auth
    if len(nested) > 1:
        raise ConfigurationError(_SEVERAL, field="auth")
    return _single(nested[0])
