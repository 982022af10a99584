"""Kind `http`: how a request is authorised, and where tokens come from."""

from __future__ import annotations

import asyncio
import base64
import json
import pwd
from pathlib import Path
from typing import Any

import httpx
import pytest

from closed_port import closed_port
from noetl_worker.errors import ConfigurationError, CredentialError, ToolError
from noetl_worker.models import Dialect, ToolResult, ToolStatus
from noetl_worker.testing import run_tool, tool_context
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.http.client import Clients
from noetl_worker.tools.http.tokens import Tokens
from noetl_worker.tools.kinds.http.http import HttpTool
from noetl_worker.tools.registry import Registry
from tool_settings import tool_settings

from .http_server import Answer, Seen, ToolServer, as_json


def told(server: ToolServer, auth: Any, **context: Any) -> dict[str, Any]:
    result = run_tool("http", {"url": server.url("/echo"), "auth": auth}, **context)
    data: dict[str, Any] = result.data["data"]
    return data


async def many(
    server: ToolServer, configs: list[dict[str, Any]], *, at_once: bool = False, **context: Any
) -> list[ToolResult]:
    """Several commands of one worker."""
    registry = Registry(plugins=False)
    calls = [
        registry.run_tool("http", {"url": server.url("/echo"), **config}, tool_context(registry=registry, **context))
        for config in configs
    ]
    try:
        return list(await asyncio.gather(*calls)) if at_once else [await call for call in calls]
    finally:
        await registry.aclose()


def oauth2(server: ToolServer, **more: Any) -> dict[str, Any]:
    return {
        "type": "oauth2_client_credentials",
        "token_url": server.url("/token"),
        "client_id": "me",
        "client_secret": "hush-hush",
        **more,
    }


# ── values that are sent as they are ────────────────────────────────────────────────────────────


CREDENTIALS = {
    "bearer_alias": {"type": "httpBearerAuth", "token": "t0ken"},
    "no_value": {"type": "bearer", "token": ""},
    "key_alias": {"type": "apiKey", "api_key": "k2", "header": "X-Mine"},
}


@pytest.mark.parametrize(
    ("auth", "headers"),
    [
        ("bearer_alias", {"authorization": "Bearer t0ken"}),
        ({"type": "bearer", "credential": "bearer_alias"}, {"authorization": "Bearer t0ken"}),
        ({"source": "credential", "key": "bearer_alias"}, {"authorization": "Bearer t0ken"}),
        ({"type": "bearer", "token": "own"}, {"authorization": "Bearer own"}),
        ({"type": "basic", "username": "u", "password": "p"}, {"authorization": "Basic dTpw"}),
        ({"type": "api_key", "token": "k"}, {"x-api-key": "k"}),
        ("key_alias", {"x-mine": "k2"}),
        ({"type": "header", "header": "X-Sign", "value": "s"}, {"x-sign": "s"}),
        ({"type": "headers", "headers": {"X-A": "1", "X-B": 2}}, {"x-a": "1", "x-b": "2"}),
        ({"headers": {"X-A": "1"}}, {"x-a": "1"}),
        ({"type": "api_key", "key": "k", "header_name": "X-Mine"}, {"x-mine": "k"}),
        ({"one": {"type": "bearer", "token": "t"}, "two": {"type": "api_key", "token": "k"}},
         {"authorization": "Bearer t", "x-api-key": "k"}),
        ({"type": "oauth2", "access_token": "t"}, {"authorization": "Bearer t"}),
        ({"type": "google", "access_token": "t"}, {"authorization": "Bearer t"}),
        ({"type": "none"}, {"authorization": None}),
    ],
)  # fmt: skip
def test_auth_is_sent_as_headers(server: ToolServer, auth: Any, headers: dict[str, str | None]) -> None:
    sent = told(server, auth, credentials=CREDENTIALS)["headers"]
    assert {name: sent.get(name) for name in headers} == headers


def test_credential_is_another_spelling_of_auth(server: ToolServer) -> None:
    config = {"url": server.url("/echo"), "credential": "bearer_alias"}
    result = run_tool("http", config, credentials=CREDENTIALS)
    assert result.data["data"]["headers"]["authorization"] == "Bearer t0ken"


def test_what_is_sent_is_kept_secret(server: ToolServer) -> None:
    secrets: set[str] = set()
    told(server, {"type": "basic", "username": "me", "password": "long-password"}, secrets=secrets)
    assert base64.b64encode(b"me:long-password").decode() in secrets


def test_key_in_the_query_is_sent_and_not_told(server: ToolServer) -> None:
    auth = {"type": "api_key", "token": "hidden-key", "in": "query", "param": "appid"}
    result = run_tool("http", {"url": server.url("/status/200?x=1"), "auth": auth}, dialect=Dialect.PYTHON)
    assert server.requests[0].query == {"x": ["1"], "appid": ["hidden-key"]}
    assert "hidden-key" not in json.dumps(result.to_json())
    assert result.data["url"] == server.url("/status/200?x=1")


def test_secret_of_the_workers_environment_by_its_name(server: ToolServer) -> None:
    settings = tool_settings(NOETL_SECRET_WEATHER="sunny-key", NOETL_SECRET_WEATHER_HOSTS="127.0.0.1")
    secrets: set[str] = set()
    sent = told(server, {"type": "bearer", "source": "secret", "key": "weather"}, secrets=secrets, settings=settings)
    assert sent["headers"]["authorization"] == "Bearer sunny-key"
    assert "sunny-key" in secrets


NONE = "; the credential or `auth` object has none"


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        ({"type": "bearer"}, "bearer auth needs 'token'" + NONE),
        # trap 35 of upstream: an empty bearer was sent
        ("no_value", "bearer auth needs 'token'" + NONE),
        ({"type": "basic", "username": "u"}, "basic auth needs 'password'" + NONE),
        ({"type": "headers"}, "headers auth needs 'headers'" + NONE),
        ({"type": "oauth2_client_credentials", "token_url": "http://h/"}, "oauth2 auth needs 'client_id'" + NONE),
        (
            {"type": "api_key", "token": "a\nb"},
            "api_key auth: the value for the header has a line break: remove it from the credential",
        ),
        (
            {"type": "bearer", "source": "secret", "key": "none"},
            "auth: the worker's environment has no NOETL_SECRET_NONE: have the operator set it",
        ),
        (
            {"type": "service_account", "service_account_json": "{"},
            "'service_account_json' is not the JSON of a key file",
        ),
    ],
)
def test_credential_that_cannot_be_used_says_what_it_lacks(server: ToolServer, auth: Any, message: str) -> None:
    with pytest.raises(CredentialError) as caught:
        told(server, auth, credentials=CREDENTIALS)
    assert str(caught.value) == f"http: {message}"
    assert server.requests == []


# ── OAuth2 client credentials ───────────────────────────────────────────────────────────────────


async def test_token_is_fetched_once_and_kept(server: ToolServer) -> None:
    secrets: set[str] = set()
    config = {"auth": oauth2(server, scope=["read", "write"], audience="api")}
    results = await many(server, [config] * 3, secrets=secrets)
    assert [one.data["data"]["headers"]["authorization"] for one in results] == ["Bearer token-1"] * 3
    assert [seen.path for seen in server.requests] == ["/token", "/echo", "/echo", "/echo"]
    asked = server.requests[0]
    assert asked.body == (
        b"grant_type=client_credentials&scope=read+write&audience=api&client_id=me&client_secret=hush-hush"
    )
    assert "token-1" in secrets


async def test_commands_that_start_together_ask_for_one_token(server: ToolServer) -> None:
    await many(server, [{"auth": oauth2(server)}] * 10, at_once=True)
    assert [seen.path for seen in server.requests].count("/token") == 1


async def test_another_secret_gets_another_token(server: ToolServer) -> None:
    configs = [{"auth": oauth2(server)}, {"auth": oauth2(server, client_secret="other")}]
    results = await many(server, configs)
    sent = [one.data["data"]["headers"]["authorization"] for one in results]
    assert sent == ["Bearer token-1", "Bearer token-2"]


async def test_client_may_show_itself_by_basic_authentication(server: ToolServer) -> None:
    await many(server, [{"auth": oauth2(server, client_auth="basic")}])
    assert server.requests[0].headers["authorization"] == "Basic " + base64.b64encode(b"me:hush-hush").decode()
    assert server.requests[0].body == b"grant_type=client_credentials"


async def test_refused_token_is_fetched_anew_once(server: ToolServer) -> None:
    def only_second(seen: Seen) -> Answer:
        return as_json({}, 200 if seen.headers["authorization"] == "Bearer token-2" else 401)

    server.routes["/guarded"] = only_second
    (result,) = await many(server, [{"url": server.url("/guarded"), "auth": oauth2(server)}])
    assert result.status is ToolStatus.SUCCESS
    assert [seen.path for seen in server.requests] == ["/token", "/guarded", "/token", "/guarded"]


async def test_token_refused_twice_is_an_auth_failure(server: ToolServer) -> None:
    (result,) = await many(server, [{"url": server.url("/status/401"), "auth": oauth2(server)}])
    assert result.error is not None
    assert (result.error.kind, result.error.code) == ("auth", "401")
    assert len(server.requests) == 4


@pytest.mark.parametrize(("life_s", "kept_for", "over_at"), [(3600, 3500, 3541), (10, 8.9, 9.1), (0, None, 0.0)])
async def test_token_is_fetched_anew_before_its_end(
    server: ToolServer, life_s: int, kept_for: float | None, over_at: float
) -> None:
    now = [1000.0]
    clients = Clients()
    tokens = Tokens(clients, now=lambda: now[0])
    values = {**oauth2(server), "token_url": server.url(f"/token?expires_in={life_s}")}
    found = [await tokens.client_credentials(values, ToolSettings())]
    if kept_for is not None:
        now[0] = 1000.0 + kept_for
        found.append(await tokens.client_credentials(values, ToolSettings()))
    now[0] = 1000.0 + over_at
    found.append(await tokens.client_credentials(values, ToolSettings()))
    await clients.aclose()
    assert found == ["token-1", *(["token-1"] if kept_for is not None else []), "token-2"]


async def test_endpoint_that_says_no_is_told_with_its_reason(server: ToolServer) -> None:
    said = {"error": "invalid_client", "error_description": "unknown", "detail": "hush-hush"}
    server.routes["/token"] = lambda seen: as_json(said, 401)
    with pytest.raises(CredentialError) as caught:
        await many(server, [{"auth": oauth2(server)}])
    expected = f"http: {server.url('/token')} gives no token or secret: HTTP 401 (invalid_client: unknown)"
    assert str(caught.value) == expected


async def test_endpoint_that_cannot_be_reached_may_be_asked_again(server: ToolServer) -> None:
    with pytest.raises(ToolError, match="http: no answer from") as caught:
        await many(server, [{"auth": oauth2(server, token_url=f"http://127.0.0.1:{closed_port()}/token")}])
    assert caught.value.retryable


async def test_endpoint_without_a_token_in_its_answer(server: ToolServer) -> None:
    server.routes["/token"] = lambda seen: as_json({"hello": 1})
    with pytest.raises(CredentialError, match="has no access_token"):
        await many(server, [{"auth": oauth2(server)}])


# ── token() in headers ──────────────────────────────────────────────────────────────────────────


async def test_token_of_a_credential_in_a_header(server: ToolServer) -> None:
    credentials = {"google_oauth": oauth2(server), "plain": {"type": "bearer", "token": "t2"}}
    variables = {"google_auth": "google_oauth", "step_name": "s"}
    headers = {
        "Authorization": "Bearer {{ token(google_auth) }}",
        "X-Two": "{{ token('plain') }}",
        "X-Step": "{{ step_name }}",
    }
    (result,) = await many(server, [{"headers": headers}], credentials=credentials, variables=variables)
    sent = result.data["data"]["headers"]
    assert (sent["authorization"], sent["x-two"], sent["x-step"]) == ("Bearer token-1", "t2", "s")


async def test_token_of_a_credential_without_one_is_refused(server: ToolServer) -> None:
    credentials = {"a": {"type": "basic", "username": "u", "password": "p"}}
    with pytest.raises(CredentialError, match=r"http: token\('a'\): the credential gives no bearer token"):
        await many(server, [{"headers": {"X": "{{ token('a') }}"}}], credentials=credentials)


# ── Google ──────────────────────────────────────────────────────────────────────────────────────


OWN_IDENTITY = tool_settings(NOETL_WORKER_GOOGLE_HOSTS="127.0.0.1")
"""It may be sent to the server of the test."""


@pytest.mark.parametrize("has_home", [True, False])
def test_metadata_server_is_asked_without_a_key(
    server: ToolServer, monkeypatch: pytest.MonkeyPatch, has_home: bool
) -> None:
    """Where the user has no entry, and nothing sets HOME, too."""
    path = "/computeMetadata/v1/instance/service-accounts/default/token"
    server.routes[path] = lambda seen: as_json({"access_token": "meta", "expires_in": 300})
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.port}")
    if not has_home:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(pwd, "getpwuid", dict[int, object]().__getitem__)
    assert told(server, {"type": "gcp_adc"}, settings=OWN_IDENTITY)["headers"]["authorization"] == "Bearer meta"
    assert server.requests[0].headers["metadata-flavor"] == "Google"
    assert server.requests[0].param("scopes") == "https://www.googleapis.com/auth/cloud-platform"


def test_no_google_credentials_anywhere_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{closed_port()}")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CredentialError, match="no Google credentials: give a service account, set GOOGLE_APPL"):
        run_tool("http", {"url": "http://127.0.0.1/", "auth": {"type": "gcp_adc"}}, settings=OWN_IDENTITY)


@pytest.fixture
def account_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "adc.json"))
    return tmp_path / "adc.json"


def test_refresh_token_of_gclouds_file(server: ToolServer, account_file: Path) -> None:
    client = {"client_id": "c", "client_secret": "s"}
    account = {"type": "authorized_user", **client, "refresh_token": "r", "token_uri": server.url("/token")}
    account_file.write_text(json.dumps(account))
    assert told(server, {"type": "gcp_adc"}, settings=OWN_IDENTITY)["headers"]["authorization"] == "Bearer token-1"
    assert server.requests[0].body == b"grant_type=refresh_token&refresh_token=r&client_id=c&client_secret=s"


def test_google_credentials_of_another_type_are_refused(account_file: Path) -> None:
    account_file.write_text('{"type": "external_account"}')
    with pytest.raises(CredentialError, match="of type 'external_account' are not supported"):
        run_tool("http", {"url": "http://127.0.0.1/", "auth": {"type": "gcp_adc"}}, settings=OWN_IDENTITY)


KEY_FILE = {"type": "service_account", "private_key": "nonsense", "client_email": "e"}


def service_account(server: ToolServer) -> dict[str, Any]:
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "type": "service_account",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "worker@project.iam",
        "token_uri": server.url("/token"),
    }


def test_service_account_signs_its_request(server: ToolServer) -> None:
    pytest.importorskip("google.auth")
    auth = {"type": "gcp", "service_account_json": json.dumps(service_account(server)), "scopes": ["scope-1"]}
    assert told(server, auth)["headers"]["authorization"] == "Bearer token-1"
    form = httpx.QueryParams(server.requests[0].body.decode())
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    claims = json.loads(base64.urlsafe_b64decode(form["assertion"].split(".")[1] + "=="))
    assert (claims["iss"], claims["scope"], claims["aud"]) == ("worker@project.iam", "scope-1", server.url("/token"))
    assert claims["exp"] - claims["iat"] == 3600


def test_service_account_key_that_is_none_is_refused(server: ToolServer) -> None:
    pytest.importorskip("google.auth")
    auth = {**KEY_FILE, "token_uri": server.url("/token")}
    with pytest.raises(CredentialError, match="the private key of the Google service account cannot be read"):
        told(server, auth)


def test_service_account_without_google_auth_names_the_extra(
    server: ToolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "google.auth.crypt", None)
    with pytest.raises(ConfigurationError, match=r"needs google-auth: pip install 'noetl-worker\[gcp\]'"):
        told(server, KEY_FILE)


def test_token_from_googles_secret_manager() -> None:
    seen: dict[str, httpx.Request] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        seen[request.url.host] = request
        answers = {
            "oauth2.googleapis.com": {"access_token": "g-token", "expires_in": 60},
            "secretmanager.googleapis.com": {"payload": {"data": base64.b64encode(b"sk-123\n").decode()}},
            "host": dict(request.headers),
        }
        return httpx.Response(200, json=answers[request.url.host])

    auth = {
        "openai": {
            "key": "projects/1/secrets/openai",
            "type": "bearer",
            "provider": "secret_manager",
            "oauth_credential": "google_oauth",
        }
    }
    secrets: set[str] = set()
    account = {"type": "google_oauth", "refresh_token": "r", "client_id": "c", "client_secret": "s"}
    tool = HttpTool(httpx.MockTransport(answer))
    result = run_tool(
        tool, {"url": "http://host/", "auth": auth}, credentials={"google_oauth": account}, secrets=secrets
    )
    assert result.data["data"]["authorization"] == "Bearer sk-123"
    asked = seen["secretmanager.googleapis.com"]
    assert str(asked.url) == f"https://{asked.url.host}/v1/projects/1/secrets/openai/versions/latest:access"
    assert asked.headers["authorization"] == "Bearer g-token"
    assert secrets == {"g-token", "sk-123"}
