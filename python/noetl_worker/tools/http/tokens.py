"""Access tokens fetched from OAuth2 (client credentials) and Google, cached until shortly before they expire.

The cache key of a token is a digest of the whole token request, secrets included. So only a command with the same
credential gets the token.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import anyio
import httpx

from noetl_worker.errors import ConfigurationError, CredentialError, DocumentError, ToolError
from noetl_worker.models.wire import JsonValue
from noetl_worker.process.threads import off_loop
from noetl_worker.remote.transport.url_path import url_path
from noetl_worker.text.json_text import dumps, loads
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.error_kinds import http_error_kind
from noetl_worker.tools.fields import excerpt
from noetl_worker.tools.http.answer import Content, object_in, read
from noetl_worker.tools.http.client import ClientOptions, Clients, shown

CLOUD_PLATFORM: Final = "https://www.googleapis.com/auth/cloud-platform"
SECRET_MANAGER: Final = "https://secretmanager.googleapis.com"
_MAX_TOKENS: Final = 256
_EARLY_S: Final = 60.0
"""A token is fetched anew this many seconds before it expires. A token that is valid for less than ten minutes is
fetched anew after nine tenths of its lifetime."""
_DEFAULT_LIFE_S: Final = 300.0
_TIMEOUT_S: Final = 30.0
_ANY: Final = ClientOptions()
_MAX_ANSWER: Final = 1 << 20
_GOOGLE_TOKEN_URI: Final = "https://oauth2.googleapis.com/token"
_GCLOUD_FILE: Final = ".config/gcloud/application_default_credentials.json"
_JWT_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(slots=True)
class _CachedToken:
    token: str
    ends: float


class Tokens:
    """Fetches access tokens and caches at most 256 of them.

    Args:
        clients: HTTP clients for the requests.
        now: returns the monotonic time in seconds.
    """

    def __init__(self, clients: Clients, now: Callable[[], float] = lambda: time.monotonic()) -> None:
        self._clients = clients
        self._now = now
        self._cached: OrderedDict[str, _CachedToken] = OrderedDict()
        self._fetching: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Cache key -> lock, so that concurrent commands fetch a token only once. A lock exists while a task holds it
        or waits for it."""

    def forget(self, token: str) -> None:
        """Remove a token from the cache, because a server has refused the token."""
        for key in [key for key, cached in self._cached.items() if cached.token == token]:
            del self._cached[key]

    async def client_credentials(self, values: Mapping[str, JsonValue], settings: ToolSettings) -> str:
        """Return an access token for client credentials (RFC 6749 4.4). `values` has `token_url`, `client_id` and
        `client_secret`, and may have `scope`, `audience` and `client_auth`.

        Raises:
            ConfigurationError: `values` has another `grant_type`.
            CredentialError: a field is missing, or the endpoint refuses.
            ToolError: the endpoint cannot be reached.
        """
        check_grant(values)
        url = first_value(values, "oauth2", "token_url", "token_uri", "token_endpoint", "endpoint")
        client, secret = first_value(values, "oauth2", "client_id"), first_value(values, "oauth2", "client_secret")
        scope = values.get("scope") or values.get("scopes")
        form = {"grant_type": "client_credentials"}
        if scope:
            form["scope"] = " ".join(map(str, scope)) if isinstance(scope, list) else str(scope)
        if values.get("audience"):
            form["audience"] = str(values["audience"])
        basic = (client, secret) if values.get("client_auth") == "basic" else None
        if basic is None:
            form.update(client_id=client, client_secret=secret)
        return await self._get([url, form, list(basic or ())], lambda: self._ask(url, form, basic, settings))

    async def google(
        self, values: Mapping[str, JsonValue], settings: ToolSettings, scopes: tuple[str, ...] = (CLOUD_PLATFORM,)
    ) -> str:
        """Return a Google access token, from a service account's key, a refresh token, or the worker's own identity.

        Args:
            values: a key {"private_key", "client_email", ...}, or {"service_account_json": such a key, also as text},
                or {"refresh_token", "client_id", "client_secret"}. Without these fields the worker's own identity is
                used: GOOGLE_APPLICATION_CREDENTIALS, gcloud's file, or the metadata server.
        """
        account = _account(values)
        if account is None:
            account = await asyncio.to_thread(_default_account)
        if account is None:
            return await self._get(["metadata", list(scopes)], lambda: self._ask_metadata(scopes, settings))
        if "private_key" in account:
            return await self._get([account, list(scopes)], lambda: self._ask_with_key(account, scopes, settings))
        form = {name: first_value(account, "google", name) for name in ("refresh_token", "client_id", "client_secret")}
        uri = str(account.get("token_uri") or _GOOGLE_TOKEN_URI)
        asked = {"grant_type": "refresh_token", **form}
        return await self._get([uri, form], lambda: self._ask(uri, asked, None, settings))

    async def google_secret(self, name: str, token: str, settings: ToolSettings) -> str:
        """Fetch the secret `projects/<p>/secrets/<s>[/versions/<v>]` from Google's Secret Manager and return its
        text."""
        address = secret_address(name if "/versions/" in name else f"{name}/versions/latest")
        request = httpx.Request("GET", address, headers={"Authorization": f"Bearer {token}"})
        answer = await self._exchange(request, _ANY, settings)
        payload = answer.get("payload")
        if not isinstance(payload, Mapping) or not isinstance(payload.get("data"), str):
            raise CredentialError(f"http: the secret {name!r} has no data: add a version to it")
        return base64.b64decode(str(payload["data"])).decode("utf-8", "replace").strip()

    async def _get(self, asked: JsonValue, fetch: Callable[[], Awaitable[tuple[str, float | None]]]) -> str:
        key = hashlib.sha256(dumps(asked)).hexdigest()
        lock = self._fetching.setdefault(key, asyncio.Lock())
        async with lock:  # a hundred commands that start together send one request
            cached = self._cached.get(key)
            if cached is None or cached.ends <= self._now():
                token, life_s = await fetch()
                life_s = _DEFAULT_LIFE_S if life_s is None else life_s
                cached = self._cached[key] = _CachedToken(token, self._now() + max(life_s - _EARLY_S, life_s * 0.9))
            self._cached.move_to_end(key)
        while len(self._cached) > _MAX_TOKENS:
            self._cached.popitem(last=False)
        return cached.token

    async def _ask(
        self, url: str, form: Mapping[str, str], basic: tuple[str, str] | None, settings: ToolSettings
    ) -> tuple[str, float | None]:
        headers = {"Accept": "application/json"}
        if basic is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(basic).encode()).decode()
        try:
            request = httpx.Request("POST", url, data=dict(form), headers=headers)
            if request.url.scheme not in ("http", "https"):
                raise ValueError("an address starts with http:// or https://")
        except (httpx.InvalidURL, ValueError) as error:
            raise CredentialError(f"http: the token address {url!r} cannot be used: {error}") from error
        return _read_token(await self._exchange(request, _ANY, settings), request.url)

    async def _ask_with_key(
        self, account: Mapping[str, JsonValue], scopes: tuple[str, ...], settings: ToolSettings
    ) -> tuple[str, float | None]:
        uri = str(account.get("token_uri") or _GOOGLE_TOKEN_URI)
        assertion = await asyncio.to_thread(_assertion, account, uri, scopes)
        return await self._ask(uri, {"grant_type": _JWT_GRANT, "assertion": assertion}, None, settings)

    async def _ask_metadata(self, scopes: tuple[str, ...], settings: ToolSettings) -> tuple[str, float | None]:
        host = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
        url = httpx.URL(
            f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token",
            params={"scopes": ",".join(scopes)},
        )
        request = httpx.Request("GET", url, headers={"Metadata-Flavor": "Google"})
        try:
            return _read_token(await self._exchange(request, ClientOptions(is_own=True), settings), url)
        except ToolError as error:
            raise CredentialError(
                "http: no Google credentials: give a service account, set GOOGLE_APPLICATION_CREDENTIALS, or run on "
                f"Google Cloud ({error})"
            ) from error

    async def _exchange(
        self, request: httpx.Request, options: ClientOptions, settings: ToolSettings
    ) -> Mapping[str, Any]:
        """Send a request and return the JSON object of the answer. Raises CredentialError if the server refuses,
        ToolError if the server does not answer."""
        place = shown(request.url)
        try:
            async with self._clients.lease(options, to=str(request.url), settings=settings) as client:
                with anyio.fail_after(_TIMEOUT_S):
                    response = await client.send(request, stream=True)
                    content: Content = await read(response, _MAX_ANSWER)
        except (httpx.HTTPError, OSError) as error:  # TimeoutError and ssl.SSLError are OSErrors
            text = f"http: no answer from {place}: {type(error).__name__}: {error}"
            raise ToolError(text, kind="connection", retryable=True) from error
        body = content.take()
        answer = await off_loop(len(body), partial(object_in, body))
        if response.is_success and answer is not None:
            return answer
        _, retryable = http_error_kind(response.status_code)
        raise CredentialError(
            f"http: {place} gives no token or secret: HTTP {response.status_code}{_reason(answer)}", retryable=retryable
        )


def check_grant(values: Mapping[str, JsonValue]) -> None:
    """Raise ConfigurationError if the credential has a `grant_type` other than `client_credentials`."""
    grant = values.get("grant_type")
    if grant is not None and grant != "client_credentials":
        raise ConfigurationError(
            f"oauth2 auth: grant_type {grant!r} is not supported; only client_credentials is "
            "(Google: type gcp_adc with a refresh_token)",
            field="auth.grant_type",
            tool="http",
        )


def _reason(answer: Mapping[str, Any] | None) -> str:
    """Return the fields `error` and `error_description` (RFC 6749 5.2) of a token server's answer, as text for an error
    message. Other fields are left out: they may contain a secret."""
    if answer is None:
        return ""
    details = [
        excerpt(str(answer[name]), 200) for name in ("error", "error_description") if isinstance(answer.get(name), str)
    ]
    return f" ({': '.join(details)})" if details else ""


def _read_token(answer: Mapping[str, Any], url: httpx.URL) -> tuple[str, float | None]:
    token = answer.get("access_token")
    if not isinstance(token, str) or not token:
        raise CredentialError(
            f"http: the answer of {shown(url)} has no access_token: check the credential's token address"
        )
    life_s = answer.get("expires_in")
    try:
        return token, None if life_s is None else float(life_s)
    except (TypeError, ValueError):
        return token, None


def first_value(values: Mapping[str, JsonValue], kind: str, *names: str) -> str:
    """Return as text the first of the credential's fields `names` that is not empty. Raise CredentialError if all of
    these fields are missing or empty. `kind` is the credential's type, for the error message."""
    for name in names:
        value = values.get(name)
        if isinstance(value, (str, int)) and str(value):
            return str(value)
    raise CredentialError(f"http: {kind} auth needs {names[0]!r}; the credential or `auth` object has none")


# ── Google ──────────────────────────────────────────────────────────────────────────────────────


def _account(values: Mapping[str, JsonValue]) -> Mapping[str, JsonValue] | None:
    """Return the fields of the Google service account or refresh token in a credential's data. Return None if the data
    has neither."""
    inner = values.get("service_account_json") or values.get("service_account") or values.get("credentials_json")
    if isinstance(inner, str):
        try:
            inner = loads(inner)
        except DocumentError as error:
            raise CredentialError("http: 'service_account_json' is not the JSON of a key file") from error
    if isinstance(inner, dict):
        return inner
    return values if "private_key" in values or "refresh_token" in values else None


def secret_address(name: str) -> str:
    """Return the Secret Manager URL of `projects/<p>/secrets/<s>/versions/<v>`."""
    return f"{SECRET_MANAGER}{url_path('v1', *name.split('/'))}:access"


def is_own_identity(values: Mapping[str, JsonValue]) -> bool:
    """Return True if a Google token would come from the worker's own identity: `values` has no key and no refresh
    token."""
    return _account(values) is None


def _default_account() -> Mapping[str, JsonValue] | None:
    """Return the credentials from the file that the worker's environment names, or from gcloud's file. Return None if
    there is no file: the metadata server then gives a token."""
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    home = os.path.expanduser("~")  # noqa: PTH111 - Path's raises where the user has no home
    path = Path(named) if named else Path(home, _GCLOUD_FILE)
    if not named and not path.exists():
        return None
    try:
        account = loads(path.read_bytes())
    except (OSError, DocumentError) as error:
        raise CredentialError(
            f"http: the file of Google credentials {path.name!r} cannot be read: {error}; correct it, or set "
            "GOOGLE_APPLICATION_CREDENTIALS to another file"
        ) from error
    if isinstance(account, dict) and ("private_key" in account or "refresh_token" in account):
        return account
    kind = account.get("type") if isinstance(account, dict) else None
    raise CredentialError(
        f"http: Google credentials of type {kind!r} are not supported; service_account and authorized_user are"
    )


def _assertion(account: Mapping[str, JsonValue], audience: str, scopes: tuple[str, ...]) -> str:
    try:
        crypt: Any = importlib.import_module("google.auth.crypt")
        jwt: Any = importlib.import_module("google.auth.jwt")
    except ImportError as error:
        raise ConfigurationError(
            "http: a Google service account needs google-auth: pip install 'noetl-worker[gcp]'"
        ) from error
    issued = int(time.time())
    claims = {
        "iss": first_value(account, "google", "client_email"),
        "scope": " ".join(scopes),
        "aud": audience,
        "iat": issued,
        "exp": issued + 3600,
    }
    try:
        signer = crypt.RSASigner.from_service_account_info(account)
        encoded: bytes = jwt.encode(signer, claims)
    except ValueError as error:
        raise CredentialError(
            "http: the private key of the Google service account cannot be read: download its key file again"
        ) from error
    return encoded.decode()
