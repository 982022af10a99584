"""Resolver of the `auth` in a tool's config to a credential's data, for all tool kinds (protocol/tasks.md#fields)."""

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
"""Connection setting of a database -> names of the credential fields that may hold it, best first."""
_SEVERAL: Final = "auth holds several credentials; name the one to use: auth: <alias>"


async def credential_data(kind: str, auth: str | Mapping[str, Any] | None, context: ToolContext) -> dict[str, Any]:
    """Return the credential data for `auth`: an alias, an object with an alias, or the data itself.

    In an object with an alias, the other fields override the fields of the credential. An object with one nested
    object, `{"db": {...}}`, stands for the nested object.
    """
    if auth is None:
        return {}
    try:
        one = auth if isinstance(auth, str) else _single(auth)
    except ConfigurationError as error:
        raise error.in_tool(kind) from None
    return await merged_data(one, context)


async def merged_data(auth: str | Mapping[str, Any], context: ToolContext) -> dict[str, Any]:
    """Return the credential data for `auth`: an alias, an object with an alias, or the data itself. In an object with
    an alias, the other fields override the fields of the credential. An object such as `{"db": {...}}` names no
    credential: it counts as data with the field `db`."""
    if isinstance(auth, str):
        return dict(await context.secrets.credential(auth))
    alias = find_alias(auth)
    if alias is None:
        return dict(auth)
    rest = {name: value for name, value in auth.items() if name not in ALIAS_FIELDS and value is not None}
    return {**await context.secrets.credential(str(alias)), **rest}


def written_data(auth: str | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the credential data that the playbook itself contains. Return None if `auth` only names a credential: this
    function fetches nothing.

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
    """Return the value in `found` under the first of the keys `names` whose value is neither null nor empty. Return
    None if there is no such key."""
    return next((found[name] for name in names if found.get(name) not in (None, "", [])), None)


def given_values(fields: Any, found: Mapping[str, Any], table: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return name -> value for the connection settings named in `table`.

    A value in the tool's config `fields` takes precedence. Otherwise the value comes from the credential `found`, under
    one of the credential's field names that `table` lists for the setting. Settings without a value are left out.
    """
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
