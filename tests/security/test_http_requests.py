"""A playbook smuggles HTTP, or sends secrets of the worker elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, CredentialError, ToolError
from noetl_worker.models import ToolResult
from noetl_worker.pipeline.delivery.dead_letter import DeadLetter, pack
from noetl_worker.testing import run_tool
from noetl_worker.tools.contract import ToolSettings
from tool_settings import tool_settings
from tools.http_server import ToolServer, as_json


def placed(value: Any, url: str) -> Any:
    """A config, with the address for `{url}`; templates stay as they are."""
    if isinstance(value, dict):
        return {name: placed(one, url) for name, one in value.items()}
    return url if value == "{url}" else value


# ── two ways of saying where a body ends ────────────────────────────────────────────────────────


@pytest.mark.parametrize("spelling", ["Transfer-Encoding", "transfer-encoding", "TRANSFER-ENCODING"])
def test_transfer_encoding_beside_a_length_is_refused(server: ToolServer, spelling: str) -> None:
    """Transfer-Encoding beside Content-Length."""
    config = {"url": server.url("/echo"), "method": "POST", "body": "0\r\n\r\nGET /inner HTTP/1.1\r\n\r\n"}
    headers = {"headers": {spelling: "chunked"}}
    for given in (headers, {"auth": {"type": "headers", **headers}}):
        with pytest.raises(ConfigurationError, match="cannot have both Transfer-Encoding and Content-Length"):
            run_tool("http", {**config, **given})
    assert server.requests == []


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("mcp", {"endpoint": "{url}", "method": "tools/list", "headers": {"Transfer-Encoding": "chunked"}}),
        ("artifact", {"uri": "{url}", "action": "put", "data": "x", "headers": {"Transfer-Encoding": "chunked"}}),
    ],
)
def test_transfer_encoding_is_refused_by_the_other_kinds_too(
    server: ToolServer, kind: str, config: dict[str, Any]
) -> None:
    """The same in other kinds."""
    with pytest.raises(ConfigurationError, match="cannot have both Transfer-Encoding and Content-Length"):
        run_tool(kind, placed(config, server.url("/echo")))
    assert server.requests == []


# ── source: secret ──────────────────────────────────────────────────────────────────────────────

SECRET = {"type": "bearer", "source": "secret", "key": "weather"}
OWN = {"type": "gcp_adc"}
TOKEN = "Bearer {{ token('own') }}"
GOOGLE = "http://storage.googleapis.com/"
AT_HOME = tool_settings(NOETL_WORKER_GOOGLE_HOSTS="127.0.0.1")


def named(hosts: str = "127.0.0.1, *.weather.test", **more: str) -> ToolSettings:
    return tool_settings(NOETL_SECRET_WEATHER="sunny-key", NOETL_SECRET_WEATHER_HOSTS=hosts, **more)


def ask(url: str, settings: ToolSettings, **config: Any) -> ToolResult:
    return run_tool("http", {"url": url, "auth": SECRET, **config}, settings=settings)


def test_secret_without_named_hosts_is_sent_nowhere(server: ToolServer) -> None:
    """A secret whose hosts are not named."""
    with pytest.raises(CredentialError, match="set NOETL_SECRET_WEATHER_HOSTS for the worker"):
        ask(server.url("/echo"), tool_settings(NOETL_SECRET_WEATHER="sunny-key"))
    assert server.requests == []


@pytest.mark.parametrize("hosts", ["127.0.0.1", "*", "other.test,127.0.0.*", "127.0.0.1:{port}"])
def test_secret_is_sent_to_its_named_hosts(server: ToolServer, hosts: str) -> None:
    settings = named(hosts.replace("{port}", str(server.port)))
    assert ask(server.url("/echo"), settings).data["data"]["headers"]["authorization"] == "Bearer sunny-key"


@pytest.mark.parametrize(
    "attack",
    [
        {"url": "http://evil.test/"},
        {"url": "http://weather.test.evil.test/"},
        {"url": "http://127.0.0.1@evil.test/"},
        {"url": "http://127.0.0.1/", "proxy": "http://evil.test:3128"},
        {"url": "http://127.0.0.1/", "headers": {"hOST": "evil.test"}},
        {"url": "http://127.0.0.1/", "auth": {"a": SECRET, "b": {"type": "api_key", "token": "k"}},
         "headers": {"Host": "evil.test"}},
    ],
)  # fmt: skip
def test_secret_leaves_for_no_other_host(attack: dict[str, Any]) -> None:
    """A secret for another host: URL, user part, proxy, Host header."""
    with pytest.raises(
        CredentialError, match=r"NOETL_SECRET_WEATHER may not be sent to 'evil\.test'|'weather\.test\.e"
    ):
        ask(settings=named(), **attack)


# ── the next page ───────────────────────────────────────────────────────────────────────────────


def paged(server: ToolServer, next_call: dict[str, Any], **config: Any) -> ToolResult:
    rule = {"while": "{{ response.next }}", "next_call": next_call, "collect": {"path": "items"}}
    credentials = {"own": OWN, "alias": {"type": "bearer", "token": "aaa"}}
    config = {"url": server.url("/first"), "retry": {"on_success": rule}, **config}
    settings = named(NOETL_WORKER_GOOGLE_HOSTS=f"127.0.0.1:{server.port}")
    return run_tool("http", config, credentials=credentials, settings=settings)


@pytest.fixture
def two(identity: ToolServer) -> Iterator[tuple[ToolServer, ToolServer]]:
    """A server that may have all credentials, and the one that its answer names."""
    with ToolServer() as other:
        identity.routes["/first"] = lambda seen: as_json({"items": [1], "next": other.url("/next")})
        identity.routes["/next"] = other.routes["/next"] = lambda seen: as_json({"items": [2], "next": None})
        yield identity, other


LINK = {"url": "{{ response.next }}"}


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"auth": SECRET}, "auth"),
        ({"auth": OWN}, "auth"),
        ({"auth": "alias"}, "auth"),
        ({"auth": {"type": "api_key", "token": "aaa", "in": "query"}}, "auth"),
        ({"headers": {"Authorization": TOKEN}}, "header 'Authorization'"),
        ({"headers": {"X-Plain": TOKEN}}, "header 'X-Plain'"),
        ({"headers": {"X-Api-Key": "aaa", "Cookie": "a=1", "X-Plain": "1"}}, "header 'X-Api-Key', header 'Cookie'"),
        ({"headers": {"Authorization": "aaa", "Cookie": "a=1"}, "next": {"headers": {"Cookie": None}}},
         "header 'Authorization'"),
    ],
)  # fmt: skip
def test_next_page_elsewhere_is_asked_for_without_credentials_alone(
    two: tuple[ToolServer, ToolServer], config: dict[str, Any], what: str
) -> None:
    """The next page is on another host."""
    server, other = two
    given = {name: value for name, value in config.items() if name != "next"}
    here, there = server.url(""), other.url("")
    with pytest.raises(CredentialError) as caught:
        paged(server, {**LINK, **config.get("next", {})}, **given)
    assert str(caught.value).startswith(f"http: the next page is at {there}, but this step's credentials ({what}) ")
    assert f"are only for {here}: " in str(caught.value)
    assert other.requests == []


def test_next_page_of_another_site_at_the_same_server_gets_no_credential(two: tuple[ToolServer, ToolServer]) -> None:
    server, other = two
    for host in ("evil.test", f"{{{{ '127.0.0.1:{other.port}' }}}}"):
        with pytest.raises(CredentialError, match=r"the next page is at http://127.0.0.1:\d+ \(Host: '"):
            paged(server, {"url": "/next", "headers": {"hOST": host}}, headers={"Authorization": TOKEN})
    assert [seen.path for seen in server.requests if "meta" not in seen.path.lower()] == ["/first"] * 2


@pytest.mark.parametrize("config", [{}, {"headers": {"X-Plain": "1", "Authorization": None}}])
def test_next_page_elsewhere_is_read_where_there_is_no_credential(
    two: tuple[ToolServer, ToolServer], config: dict[str, Any]
) -> None:
    assert paged(two[0], LINK, **config).data["data"] == [1, 2]


def test_header_that_next_call_leaves_out_does_not_hold_a_page_back(two: tuple[ToolServer, ToolServer]) -> None:
    server, other = two
    next_call = {**LINK, "headers": {"Authorization": None}}
    assert paged(server, next_call, headers={"Authorization": TOKEN}).data["data"] == [1, 2]
    assert "authorization" not in other.requests[0].headers


@pytest.mark.parametrize("config", [{"auth": SECRET}, {"headers": {"Authorization": TOKEN}}])
@pytest.mark.parametrize("host", [None, "127.0.0.1:{port}"])
def test_next_page_at_the_same_server_gets_the_credentials(
    two: tuple[ToolServer, ToolServer], config: dict[str, Any], host: str | None
) -> None:
    server, _ = two
    headers = {**config.get("headers", {}), "Host": host and host.replace("{port}", str(server.port))}
    next_call = {"url": server.url("/next").replace("http:", "HTTP:")}
    assert paged(server, next_call, **{**config, "headers": headers}).data["data"] == [1, 2]
    assert server.requests[-1].headers["authorization"] in ("Bearer sunny-key", "Bearer mine")


def test_token_in_any_header_does_not_follow_a_redirect(two: tuple[ToolServer, ToolServer]) -> None:
    server, other = two
    headers = {"X-Plain": TOKEN}
    run_tool("http", {"url": server.url("/redirect"), "params": {"to": other.url("/next")}, "headers": headers},
             credentials={"own": OWN}, settings=AT_HOME)  # fmt: skip
    assert server.requests[-1].headers["x-plain"] == "Bearer mine"
    assert "x-plain" not in other.requests[0].headers


# ── source: secret, elsewhere ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("mcp", {"endpoint": "http://evil.test/mcp", "method": "tools/list"}),
        ("artifact", {"uri": "http://evil.test/x"}),
        ("python", {"script": {"uri": "http://evil.test/x.py", "source": {"type": "http", "auth": SECRET}}}),
    ],
)
def test_other_kinds_send_the_secret_to_its_hosts_only(kind: str, config: dict[str, Any]) -> None:
    """The secret in `mcp`, `artifact` and a script's source."""
    with pytest.raises(CredentialError, match=r"may not be sent to 'evil\.test'"):
        run_tool(kind, {**config, **({} if kind == "python" else {"auth": SECRET})}, settings=named())


def test_secret_with_named_hosts_is_not_handed_to_tasks_either() -> None:
    """A task asks for the value of a secret with hosts."""
    with pytest.raises(ToolError, match="may be sent only to the hosts in the worker's NOETL_SECRET_WEATHER_HOSTS"):
        run_tool("secrets", {"name": "weather"}, settings=named())
    assert run_tool("secrets", {"name": "weather"}, settings=named("*")).data["value"] == "sunny-key"


# ── the worker's own identity at Google ─────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("http", {"url": "{url}", "auth": OWN}),
        ("http", {"url": "{url}", "auth": {"one": OWN, "two": {"type": "none"}}}),
        ("http", {"url": "{url}", "headers": {"Authorization": "Bearer {{ token('own') }}"}}),
        ("http", {"url": GOOGLE, "auth": OWN, "proxy": "{url}"}),
        ("http", {"url": "{url}", "auth": OWN, "headers": {"Host": "storage.googleapis.com"}}),
        ("http", {"url": GOOGLE, "headers": {"Authorization": TOKEN, "Host": "{{ 'evil' if 'a.googleapis.com/' }}"}}),
        ("http", {"url": "http://googleapis.com.example.net/", "auth": OWN}),
        ("mcp", {"endpoint": "{url}", "method": "tools/list", "auth": OWN}),
        ("artifact", {"uri": "{url}", "action": "get", "auth": OWN}),
        ("python", {"script": {"uri": "{url}", "source": {"type": "http", "auth": OWN}}}),
        ("python", {"script": {"uri": GOOGLE, "source": {"type": "http", "auth": OWN, "headers": {"host": "evil"}}}}),
        ("python", {"script": {"uri": "gs://a/b", "source": {"type": "gcs", "headers": {"host": "evil"}}}}),
    ],
)
def test_own_google_identity_of_the_worker_leaves_for_no_other_host(
    identity: ToolServer, kind: str, config: dict[str, Any]
) -> None:
    """A token of the worker's service account for a playbook's server."""
    with pytest.raises(CredentialError, match=r"own Google identity may not be sent to .*NOETL_WORKER_GOOGLE_HOSTS"):
        run_tool(kind, placed(config, identity.url("/echo")), credentials={"own": OWN})
    assert identity.requests == []


@pytest.mark.parametrize("auth", [{"type": "header", "header": "hOST", "value": "evil"}, "kept"])
@pytest.mark.parametrize("with_it", [{"headers": {"X": TOKEN}}, {}])
def test_credential_names_no_other_site_that_the_others_are_sent_to(
    identity: ToolServer, auth: Any, with_it: dict[str, Any]
) -> None:
    kept = {"type": "headers", "headers": {"X-Plain": "1", "Host": "evil"}}
    several = auth if with_it else {"one": OWN, "two": auth if isinstance(auth, dict) else {"credential": auth}}
    with pytest.raises(CredentialError, match=r"http: headers? auth: a credential may not set the header Host: set it"):
        run_tool("http", {"url": identity.url("/echo"), "auth": several, **with_it},
                 credentials={"own": OWN, "kept": kept}, settings=AT_HOME)  # fmt: skip
    assert not any(seen.path == "/echo" for seen in identity.requests)


def test_own_google_identity_is_sent_to_its_named_hosts(identity: ToolServer) -> None:
    config = {"url": identity.url("/echo"), "auth": OWN}
    result = run_tool("http", config, settings=AT_HOME)
    assert result.data["data"]["headers"]["authorization"] == "Bearer mine"


# ── OAuth2 ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("grant", ["password", "refresh_token", "authorization_code", "", 7])
def test_grant_that_is_not_known_is_refused(server: ToolServer, grant: Any) -> None:
    """An unknown OAuth grant."""
    auth = {"type": "oauth2", "token_url": server.url("/token"), "client_id": "me", "client_secret": "hush-hush"}
    for given in (auth, {"credential": "kept"}):
        values = {**given, "grant_type": grant}
        with pytest.raises(ConfigurationError, match=r"grant_type .* is not supported; only client_credentials is"):
            run_tool("http", {"url": server.url("/echo"), "auth": values}, credentials={"kept": auth})
    assert server.requests == []
    known = {**auth, "grant_type": "client_credentials"}
    assert run_tool("http", {"url": server.url("/echo"), "auth": known}).error is None


# ── dead letters ────────────────────────────────────────────────────────────────────────────────


def test_dead_letter_keeps_no_credential_of_a_header() -> None:
    """A credential in a header of a dead letter."""
    credentials = {
        "Authorization": "Bearer aaa-1",
        "proxy-authorization": "Basic aaa-2",
        "COOKIE": "session=aaa-3",
        "Set-Cookie": "session=aaa-4",
        "X-Auth-Token": "aaa-5",
        "x-goog-iam-token": "aaa-6",
    }
    body = pack(b"{}", {**credentials, "traceparent": "00-1", "Nats-Msg-Id": "7"}, kind="k", reason="r", subject="s")
    assert b"aaa-" not in body
    dead_letter = DeadLetter.parse(body)
    assert dict(dead_letter.headers) == {"traceparent": "00-1", "Nats-Msg-Id": "7"}
    assert set(dead_letter.headers_left_out) == set(credentials)
    assert dict(dead_letter.detail) == {}
