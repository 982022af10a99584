"""Conversion of a request's `auth` field, an alias or an object, to headers and query parameters
(protocol/tasks.md#fields)."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

import httpx

from noetl_worker.errors import ConfigurationError, CredentialError
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.secrets.auth_alias import find_alias
from noetl_worker.tools.contract import ToolContext, ToolSettings
from noetl_worker.tools.credential import merged_data
from noetl_worker.tools.http.client import Clients
from noetl_worker.tools.http.secret_hosts import SECRET_VARIABLE, Destination, check_destination, check_identity
from noetl_worker.tools.http.tokens import CLOUD_PLATFORM, Tokens, check_grant, first_value, is_own_identity

_RESERVED: Final = frozenset(
    {"source", "key", "name", "service", "secret_name", "scope", "fields", "inject", "type", "credential", "token"}
    | {"provider", "username", "password", "header", "value", "alias", "headers"}
)
"""Keys of an `auth` object that describes one credential. If `auth` has none of these keys, it holds several
credentials by name (protocol/tasks.md#fields)."""
_SUPPORTED: Final = "bearer, basic, api_key, header, headers, oauth2_client_credentials, gcp_adc, service_account, none"
_GOOGLE: Final = ("gcp", "google", "gcs", "service_account", "authorized_user")


@dataclass(frozen=True, slots=True)
class Authorization:
    """The headers and query parameters that authorise a request.

    `fetched` is the access token in `headers`, if the worker fetched this token. If the server refuses the request, the
    caller passes the token to `Tokens.forget`.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    fetched: str | None = None


_SCHEMES: Final = frozenset({"bearer", "basic", "token", "apikey"})


class Authorizer:
    """Turns an `auth` field into an Authorization. All secret values are registered with `context.secrets.keep`."""

    def __init__(self, clients: Clients) -> None:
        self.tokens = Tokens(clients)

    async def authorize(
        self, auth: str | Mapping[str, Any] | None, context: ToolContext, destination: Destination
    ) -> Authorization:
        """Return the headers and query parameters that authorise a request.

        Args:
            auth: None, the alias of a credential, or one of the objects below. A map of any names to such objects
                applies them all.
                {"type": ..., ...} has the values of the credential as its other keys.
                {"credential": alias} or {"source": "credential", "key": alias} names a credential to fetch.
                {"source": "secret", "key": NAME} names the variable NOETL_SECRET_<NAME> of the worker's environment.
            destination: the hosts that see the request. A secret or identity of the worker itself may be sent only to
                hosts that the operator has named.

        Raises:
            CredentialError: the plane does not know the alias, or the credential lacks a needed field. Or a secret of
                the worker may not be sent to the destination.
            ConfigurationError: `auth` has a type that cannot authorise an HTTP request.
        """
        check_auth(auth)
        if auth is None:
            return Authorization()
        if _is_several(auth):
            parts = [await self.authorize(part_auth, context, destination) for part_auth in auth.values()]
            return Authorization(
                {name: value for part in parts for name, value in part.headers.items()},
                {name: value for part in parts for name, value in part.params.items()},
                next((part.fetched for part in parts if part.fetched), None),
            )
        values = await self._values(auth, context, destination)
        kind = _supported(values)
        if kind == "google" and not isinstance(values.get("access_token"), str) and is_own_identity(values):
            check_identity(destination, context.settings)
        if kind in _FETCHERS:
            made = await _FETCHERS[kind](self.tokens, values, context.settings)
        else:
            made = _MAKERS[kind](values)
        if "host" in map(str.lower, made.headers):  # `check_destination` has not seen this Host
            raise CredentialError(
                f"http: {kind} auth: a credential may not set the header Host: set it in the step's own 'headers'"
            )
        for value in (*made.headers.values(), *made.params.values()):
            if "\n" in value or "\r" in value:
                raise CredentialError(
                    f"http: {kind} auth: the value for the header has a line break: remove it from the credential"
                )
            scheme, _, rest = value.partition(" ")
            # A Basic value is registered too, although it is only encoded. In a text without a known scheme, the first
            # word is part of the secret.
            context.secrets.keep(rest if rest and scheme.lower() in _SCHEMES else value)
        return made

    async def token(self, alias: str, context: ToolContext, destination: Destination) -> str:
        """Return the bearer token of a credential, without the word `Bearer`. A template `{{ token(alias) }}` calls
        this method, as with NoETL's Python worker."""
        headers = (await self.authorize(alias, context, destination)).headers
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer":
            raise CredentialError(
                f"http: token({alias!r}): the credential gives no bearer token; name one of type bearer, "
                "oauth2_client_credentials, gcp_adc or service_account"
            )
        return token

    async def _values(
        self, auth: str | Mapping[str, Any], context: ToolContext, destination: Destination
    ) -> dict[str, JsonValue]:
        """Return the credential's data, overridden by the values written in `auth`."""
        if isinstance(auth, str):
            return dict(await context.secrets.credential(auth))
        own = {name: value for name, value in auth.items() if value is not None}
        source = own.get("source")
        if own.get("provider") == "secret_manager":
            return await self._from_secret_manager(own, context)
        if source == "secret":
            name = str(own.get("key") or own.get("secret_name"))
            return {**own, "token": _worker_secret(name, context, destination)}
        return await merged_data(own, context)

    async def _from_secret_manager(self, own: Mapping[str, Any], context: ToolContext) -> dict[str, JsonValue]:
        """Fetch a secret from Google's Secret Manager, and return a credential whose token is the secret's text. `own`
        has the secret's name (`key`) and the alias of a Google credential for the request (`oauth_credential`)."""
        alias, name = own.get("oauth_credential"), str(own.get("key") or own.get("secret_name"))
        google = dict(await context.secrets.credential(str(alias))) if alias else {}
        access = await self.tokens.google(google, context.settings)
        context.secrets.keep(access)
        secret = await self.tokens.google_secret(name, access, context.settings)
        context.secrets.keep(secret)
        return {"type": own.get("type") or "bearer", "header": own.get("header"), "token": secret}


class OverHttp:
    """Base class of tools that send HTTP requests. It holds the tool's connections and authorizer.

    Args:
        transport: replaces the network in tests.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._clients = Clients(transport)
        self._authorizer = Authorizer(self._clients)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._clients.aclose()


def check_auth(auth: str | Mapping[str, Any] | None) -> None:
    """Check an `auth` field without fetching a credential, for the `__post_init__` of a config model.

    Raises:
        ConfigurationError: `auth` has an unsupported source or type, or lacks a field.
    """
    if not isinstance(auth, Mapping):
        return
    if _is_several(auth):
        if not all(isinstance(part, Mapping) for part in auth.values()):
            raise ConfigurationError(f"auth needs 'type'; supported: {_SUPPORTED}", field="auth", tool="http")
        for part in auth.values():
            check_auth(part)
        return
    own = {name: value for name, value in auth.items() if value is not None}
    source, is_managed = own.get("source"), own.get("provider") == "secret_manager"
    if is_managed and not isinstance(own.get("key") or own.get("secret_name"), str):
        raise ConfigurationError(
            "auth from secret_manager needs 'key': projects/<p>/secrets/<s>", field="auth", tool="http"
        )
    if not is_managed and source not in (None, "credential", "secret", "inline"):
        raise ConfigurationError(
            f"auth source {source!r} is not supported; use credential, secret or inline",
            field="auth.source",
            tool="http",
        )
    is_the_credential = not is_managed and source != "secret" and find_alias(own) is None
    if (is_the_credential or "type" in own) and _supported(own) == "oauth2":
        check_grant(own)


def _is_several(auth: str | Mapping[str, Any]) -> TypeGuard[Mapping[str, Any]]:
    """Return True if `auth` holds several credentials by name: `{"a": {"type": ...}, "b": {...}}`."""
    return isinstance(auth, Mapping) and bool(auth) and _RESERVED.isdisjoint(auth)


def _supported(values: Mapping[str, JsonValue]) -> str:
    kind = _kind(values)
    if kind not in _MAKERS and kind not in _FETCHERS:
        raise ConfigurationError(
            f"auth type {values.get('type')!r} is not supported; supported: {_SUPPORTED}",
            field="auth.type",
            tool="http",
        )
    return kind


def _worker_secret(name: str, context: ToolContext, destination: Destination) -> str:
    """Return the value of NOETL_SECRET_<NAME> from the worker's environment.

    differs-from-upstream: a playbook can read only variables with the prefix NOETL_SECRET_ (`source: secret`). An
    `auth` with `source: env` is refused, because with it a playbook could read the worker's own passwords.
    """
    variable = SECRET_VARIABLE + name.upper()
    value = context.settings.named.get(variable)
    if not value:
        raise CredentialError(f"http: auth: the worker's environment has no {variable}: have the operator set it")
    check_destination(variable, destination, context.settings)
    context.secrets.keep(value)
    return value


# ── one function for each type ──────────────────────────────────────────────────────────────────


def _bearer(values: Mapping[str, JsonValue]) -> Authorization:
    return _with_token(first_value(values, "bearer", "token", "access_token", "bearer_token"))


def _basic(values: Mapping[str, JsonValue]) -> Authorization:
    user = first_value(values, "basic", "username", "user", "login")
    pair = f"{user}:{first_value(values, 'basic', 'password')}"
    return Authorization({"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()})


def _api_key(values: Mapping[str, JsonValue]) -> Authorization:
    key = first_value(values, "api_key", "token", "api_key", "value", "key")
    if values.get("in") == "query":
        return Authorization(params={str(values.get("param") or values.get("name") or "api_key"): key})
    return Authorization({str(values.get("header") or values.get("header_name") or "X-API-Key"): key})


def _header(values: Mapping[str, JsonValue]) -> Authorization:
    return Authorization(
        {first_value(values, "header", "header", "name"): first_value(values, "header", "value", "token")}
    )


def _headers(values: Mapping[str, JsonValue]) -> Authorization:
    headers = values.get("headers")
    if not isinstance(headers, Mapping) or not headers:
        raise CredentialError("http: headers auth needs 'headers'; the credential or `auth` object has none")
    return Authorization({str(name): str(value) for name, value in headers.items()})


async def _oauth2(tokens: Tokens, values: Mapping[str, JsonValue], settings: ToolSettings) -> Authorization:
    if not any(values.get(name) for name in ("token_url", "token_uri", "token_endpoint", "endpoint")):
        return _bearer(values)
    return _with_token(await tokens.client_credentials(values, settings), fetched=True)


async def _google(tokens: Tokens, values: Mapping[str, JsonValue], settings: ToolSettings) -> Authorization:
    if isinstance(values.get("access_token"), str):
        return _with_token(str(values["access_token"]))
    given = values.get("scopes") or values.get("scope") or CLOUD_PLATFORM
    scopes = tuple(map(str, given)) if isinstance(given, list) else tuple(str(given).split())
    return _with_token(await tokens.google(values, settings, scopes), fetched=True)


_MAKERS: Final[Mapping[str, Callable[[Mapping[str, JsonValue]], Authorization]]] = {
    "none": lambda _: Authorization(),
    "bearer": _bearer,
    "basic": _basic,
    "api_key": _api_key,
    "header": _header,
    "headers": _headers,
}
_FETCHERS: Final[Mapping[str, Callable[[Tokens, Mapping[str, JsonValue], ToolSettings], Awaitable[Authorization]]]] = {
    "oauth2": _oauth2,
    "google": _google,
}
"""Type of `auth` -> function that makes the Authorization. Each of these types may need an access token from a
server."""


def _with_token(token: str, *, fetched: bool = False) -> Authorization:
    return Authorization({"Authorization": f"Bearer {token}"}, fetched=token if fetched else None)


def _kind(values: Mapping[str, JsonValue]) -> str:
    """Return the canonical type of an `auth` object: `bearer` for `bearer_token` and `httpBearerAuth`. Without a type,
    guess from the fields."""
    given = str(values.get("type") or "").lower().replace("-", "_")
    for kind, words in (
        ("google", _GOOGLE),
        ("oauth2", ("oauth", "client_credentials")),
        ("bearer", ("bearer",)),
        ("basic", ("basic",)),
        ("api_key", ("api_key", "apikey")),
    ):
        if any(word in given for word in words):
            return kind
    if given in ("custom", "custom_headers"):
        return "headers"
    if given:
        return given
    guesses = {"private_key": "google", "client_secret": "oauth2", "token": "bearer", "username": "basic"}
    return next((kind for name, kind in {**guesses, "headers": "headers"}.items() if name in values), "unknown")
