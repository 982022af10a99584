"""The `auth` of a config as the data of a credential: for every kind (protocol/tasks.md#fields)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.text.secrets.auth_alias import ALIAS_FIELDS, alias_of
from noetl_worker.tools.contract import ToolContext

DATABASE_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "host": ("db_host", "host", "hostname"),
    "port": ("db_port", "port"),
    "database": ("db_name", "database", "dbname", "db"),
    "user": ("db_user", "user", "username"),
    "password": ("db_password", "password"),
}
"""Part of a database's address -> its fields in a credential."""
_SEVERAL: Final = "auth holds several credentials; name the one to use: auth: <alias>"


async def credential_data(kind: str, auth: str | Mapping[str, Any] | None, context: ToolContext) -> dict[str, Any]:
    """The data of `auth`: an alias; an object that names one; or the data itself.

    An object's other fields win over the credential's. {"anything": {...}} with one entry is that entry.
    """
    if auth is None:
        return {}
    try:
        one = auth if isinstance(auth, str) else _single(auth)
    except ConfigurationError as error:
        raise error.within(kind) from None
    return await merged_data(one, context)


async def merged_data(auth: str | Mapping[str, Any], context: ToolContext) -> dict[str, Any]:
    """The same of an object that is one credential, whatever it has inside."""
    if isinstance(auth, str):
        return dict(await context.secrets.credential(auth))
    alias = alias_of(auth)
    if alias is None:
        return dict(auth)
    rest = {name: value for name, value in auth.items() if name not in ALIAS_FIELDS and value is not None}
    return {**await context.secrets.credential(str(alias)), **rest}


def written_data(auth: str | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The data that stands in the playbook itself; None where a credential is named: what it has is not known yet.

    Raises:
        ValueError: several credentials.
    """
    if auth is None:
        return {}
    if isinstance(auth, str):
        return None
    credential = _single(auth)
    return credential if alias_of(credential) is None else None


def first_given(found: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value under the first of these spellings that has one."""
    return next((found[name] for name in names if found.get(name) not in (None, "", [])), None)


def given_values(fields: Any, found: Mapping[str, Any], table: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Of each name in `table` the config's own field, else what the credential has under one of its spellings there."""
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
