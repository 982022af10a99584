"""The `auth` field of a request: a credential's alias or an object, as headers (tools.md 4.1, 4.5)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from noetl_worker.errors import ConfigurationError, CredentialError
from noetl_worker.models import JsonValue
from noetl_worker.tools.contract import ToolContext

__all__ = ["auth_headers"]

_ALIAS_KEYS: Final = ("credential", "key", "alias")
_SUPPORTED: Final = "bearer, basic, api_key, header, none"


async def auth_headers(auth: str | Mapping[str, Any] | None, context: ToolContext) -> dict[str, str]:
    """Headers that authorise a request.

    Args:
        auth: an alias; {"type", ...} with the values or with "credential": alias; {"source": "credential", "key":
            alias}; None.

    Raises:
        CredentialError: the alias is not known, or the credential lacks what its type needs.
        ConfigurationError: a type that cannot be sent as headers.
    """
    if auth is None:
        return {}
    values = await _values(auth, context)
    kind = _kind(values)
    if kind == "none":
        return {}
    if kind == "bearer":
        return {"Authorization": f"Bearer {_need(values, 'bearer', 'token', 'access_token', 'bearer_token')}"}
    if kind == "basic":
        user = _need(values, "basic", "username", "user", "login")
        pair = f"{user}:{_need(values, 'basic', 'password')}"
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    if kind == "api_key":
        name = str(values.get("header") or values.get("header_name") or "X-API-Key")
        return {name: _need(values, "api_key", "token", "api_key", "value", "key")}
    if kind == "header":
        return {_need(values, "header", "header", "name"): _need(values, "header", "value", "token")}
    raise ConfigurationError(f"http: auth type {values.get('type')!r} is not supported; supported: {_SUPPORTED}")


async def _values(auth: str | Mapping[str, Any], context: ToolContext) -> dict[str, JsonValue]:
    """The object itself, over the data of the credential it names."""
    if isinstance(auth, str):
        return dict(await context.credential(auth))
    own = {name: value for name, value in auth.items() if value is not None}
    names_one = own.get("source") == "credential" or "credential" in own
    alias = next((own[key] for key in _ALIAS_KEYS if key in own), None) if names_one else None
    if alias is None:
        return own
    found = dict(await context.credential(str(alias)))
    rest = {name: value for name, value in own.items() if name not in (*_ALIAS_KEYS, "source")}
    return {**found, **rest}


def _kind(values: Mapping[str, JsonValue]) -> str:
    """The type, in any of its spellings: bearer, bearer_token, httpBearerAuth; guessed from the values without one."""
    given = str(values.get("type") or "").lower().replace("-", "_")
    for kind, words in (("bearer", ("bearer", "oauth2")), ("basic", ("basic",)), ("api_key", ("api_key", "apikey"))):
        if any(word in given for word in words):
            return kind
    if given:
        return given
    return "bearer" if "token" in values else "basic" if "username" in values else "unknown"


def _need(values: Mapping[str, JsonValue], kind: str, *names: str) -> str:
    for name in names:
        value = values.get(name)
        if isinstance(value, (str, int)) and str(value):
            if "\n" in str(value) or "\r" in str(value):
                raise CredentialError(f"http: {kind} auth: {name!r} has a line break in it")
            return str(value)
    raise CredentialError(f"http: {kind} auth needs {names[0]!r}; the credential or `auth` object has none")
