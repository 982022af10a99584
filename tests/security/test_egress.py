"""A playbook's address leads to the metadata service or another denied place."""

from __future__ import annotations

import ast
import re
import socket
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import SettingsError, ToolError
from noetl_worker.observability.probes import Health
from noetl_worker.pipeline.command.tool_rules import make_registry
from noetl_worker.pipeline.delivery.keepalive import Keepalive
from noetl_worker.process import handed_down
from noetl_worker.remote.plane.identity import Identity
from noetl_worker.settings.networks import EgressRule, Networks
from noetl_worker.settings.settings import load_settings
from noetl_worker.testing import arun_tool, run_tool
from noetl_worker.tools.built_in import BUILT_IN
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.http.client import Clients
from noetl_worker.tools.http.client_transport import ClientTransport
from noetl_worker.tools.http.egress_backend import connected, guard
from noetl_worker.tools.http.tokens import Tokens
from noetl_worker.worker.supervisor.supervisor import Supervisor
from tools.http_server import Answer, ToolServer

from .commands import placed
from .test_files import needs_duckdb

PEM = Path(__file__).parents[1] / "tools" / "loopback.pem"
Resolve = Callable[[Mapping[str, Sequence[str]]], list[str]]


def needs_its_package(kind: str, config: Mapping[str, Any]) -> None:
    needs_duckdb(kind)
    if "s3://" in str(config):
        pytest.importorskip("botocore", reason="the aws extra is not in this install")


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Names of a test's own; what they give is the addresses, the whole list for each lookup. Returns the lookups."""

    def use(names: Mapping[str, Sequence[str]]) -> list[str]:
        asked: list[str] = []

        def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
            name = host.decode() if isinstance(host, bytes) else host
            asked.append(name)
            addresses = [one for one in names[name] if one]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return use


# ── what an address is ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "169.254.170.2", "::ffff:169.254.169.254", "::169.254.169.254", "64:ff9b::a9fe:a9fe",
     "::ffff:0:a9fe:a9fe",
     "2002:a9fe:a9fe::1", "fe80::1%eth0", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "100.100.100.200",
     "168.63.129.16", "192.0.0.192"],
)  # fmt: skip
def test_metadata_and_link_local_addresses_are_denied_by_default(address: str) -> None:
    assert load_settings({}).egress_deny == ("link-local", "metadata")
    assert Networks.parse(load_settings({}).egress_deny).find_item(address) in ("link-local", "metadata")


def test_addresses_that_nothing_denies_are_free() -> None:
    default = Networks.parse(load_settings({}).egress_deny)
    free = ("127.0.0.1", "::1", "10.0.0.1", "1.1.1.1", "2606:4700::1111")
    assert [default.find_item(one) for one in free] == [None] * 5
    nothing_denied = Networks.parse(load_settings({"NOETL_WORKER_EGRESS_DENY": "none"}).egress_deny)
    assert nothing_denied.find_item("169.254.169.254") is None
    own = Networks.parse(load_settings({"NOETL_WORKER_EGRESS_DENY": "private, 1.1.1.1,2606:4700::/32"}).egress_deny)
    assert [own.find_item(one) for one in ("10.1.2.3", "1.1.1.1", "::ffff:1.1.1.1", "2606:4700::1111", "1.1.1.2")] == [
        "private", "1.1.1.1", "1.1.1.1", "2606:4700::/32", None,
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["metadat", "10.0.0.1/8", "300.1.1.1", "none,private", "example.com"])
def test_rule_that_cannot_be_read_stops_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match="NOETL_WORKER_EGRESS_DENY"):
        load_settings({"NOETL_WORKER_EGRESS_DENY": text})


async def test_worker_gives_its_tools_the_addresses_that_its_settings_deny() -> None:
    registry = make_registry(load_settings({"NOETL_WORKER_EGRESS_DENY": "127.0.0.2"}))
    with pytest.raises(ToolError, match=r"127\.0\.0\.2: its NOETL_WORKER_EGRESS_DENY has 127\.0\.0\.2"):
        await arun_tool("http", {"url": "http://127.0.0.2:9/"}, registry=registry)


# ── every tool that opens connections by URL ────────────────────────────────────────────────────

OAUTH2 = {"type": "oauth2", "client_id": "c", "client_secret": "s"}
CLUSTER = {"url": "{url}", "token": "t"}
S3 = {"type": "s3", "access_key_id": "a", "secret_access_key": "s", "endpoint": "{url}"}
DATABASE: dict[str, Any] = {"host": "127.0.0.1", "port": 9, "user": "u", "database": "d"}
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("http", {"url": "{url}"}),
    ("http", {"url": "http://elsewhere.test/", "auth": {**OAUTH2, "token_url": "{url}"}}),
    ("http", {"url": "http://elsewhere.test/", "proxy": "{url}"}),
    ("mcp", {"endpoint": "{url}", "method": "tools/list"}),
    ("mcp", {"endpoint": "{url}", "method": "health"}),
    ("artifact", {"uri": "{url}"}),
    ("artifact", {"uri": "{url}", "action": "put", "data": "x"}),
    ("python", {"script": {"uri": "{url}"}}),
    ("python", {"script": {"uri": "s3://bucket/x.py", "source": {"auth": S3}}}),
    ("postgres", {"script": {"uri": "{url}"}, **DATABASE}),
    ("duckdb", {"script": {"uri": "{url}"}}),
    ("script", {"script": {"uri": "{url}"}, "auth": {"url": "http://elsewhere.test", "token": "t"}}),
    ("script", {"script": "print(1)", "auth": CLUSTER}),
    ("container", {"image": "busybox", "auth": CLUSTER}),
    (
        "transfer",
        {"source": {"type": "http", "url": "{url}"}, "target": {"type": "duckdb", "database": "{db}", "table": "t"}},
    ),
]
JOBS = "/apis/batch/v1/namespaces/noetl/jobs"
BY_RUST = {"rhai"}
"""Tested below."""
NO_URL = {
    "shell": "a process of its own",
    "noop": "nothing",
    "playbook": "the worker's own control plane",
    "result_fetch": "the worker's own control plane",
    "task_sequence": "runs other kinds",
    "workbook": "runs other kinds",
    "secrets": "the worker's environment, its directory of secrets, and one address of Google's",
    "nats": "a NATS login: its protocol, not HTTP",
    "subscription": "a NATS login: its protocol, not HTTP",
    "snowflake": "its connector's connections",
    "ducklake": "DuckDB's extensions make its connections",
}
"""Kinds to which NOETL_WORKER_EGRESS_DENY does not apply, and what they connect to instead (docs/security.md)."""
NOTHING_SET = ToolSettings()
IDS = [f"{index}-{kind}" for index, (kind, _) in enumerate(CALLS)]


def denying(*items: str) -> ToolSettings:
    """Settings of a worker with these items in NOETL_WORKER_EGRESS_DENY."""
    return ToolSettings(egress=EgressRule(Networks.parse(items)))


def at(config: dict[str, Any], url: str) -> Any:
    return placed(config, url=url, db=f"{tempfile.gettempdir()}/nowhere/a.db")


def test_each_kind_is_tested_here_or_opens_no_connection_by_url() -> None:
    """(no attack) A kind that is added has to be put on one of the lists."""
    assert {kind for kind, _ in CALLS} | BY_RUST | NO_URL.keys() == BUILT_IN.keys()
    assert not {kind for kind, _ in CALLS} & NO_URL.keys()


PACKAGE = Path(__file__).parents[2] / "python/noetl_worker"
OPENERS = re.compile(r"httpx\.(Async)?(Client|HTTPTransport)|_Client|ClientTransport")
TO_ITS_OWN_ADDRESSES = {"tools/http/tokens.py": 1, "tools/kinds/container/cluster.py": 1}
"""Files with requests to which no rule applies, and how many: to the machine's own metadata service and cluster."""


def test_no_tool_opens_an_http_client_without_the_rule() -> None:
    """(no attack)"""
    opened, own = set[str](), Counter[str]()
    for path in sorted((PACKAGE / "tools").rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and OPENERS.fullmatch(ast.unparse(node.func)):
                opened.add(file)
            if isinstance(node, ast.keyword) and node.arg == "is_own":
                own[file] += 1
    assert opened == {"tools/http/client.py"}
    assert own == TO_ITS_OWN_ADDRESSES
    for function, name in (
        (Clients.lease, "settings"),
        (ClientTransport, "rule"),
        (guard, "rule"),
        (connected, "rule"),
    ):
        assert signature(function).parameters[name].default is Parameter.empty, function


@pytest.mark.parametrize(("kind", "config"), CALLS, ids=IDS)
@pytest.mark.parametrize("host", ["metadata.test", "169.254.169.254", "[::ffff:a9fe:a9fe]", "2852039166", "0xa9fea9fe"])
def test_no_tool_connects_to_the_metadata_service(
    resolve: Resolve, kind: str, config: dict[str, Any], host: str
) -> None:
    """Each kind is given the address of the metadata service."""
    needs_its_package(kind, config)
    there = ["169.254.169.254"]
    resolve({"metadata.test": there, "2852039166": there, "0xa9fea9fe": there})
    with pytest.raises(
        ToolError, match=r"the worker does not connect to .*NOETL_WORKER_EGRESS_DENY has link-local"
    ) as caught:
        run_tool(kind, at(config, f"http://{host}/latest/x.py"))
    assert (caught.value.kind, caught.value.code, caught.value.retryable) == ("configuration", "egress", False)


FOLLOWS = {0, 3, 5, *range(7, 12), 14}
"""Of `CALLS`, those that follow a redirect; the others have it as their answer."""


@pytest.mark.parametrize("number", range(len(CALLS)), ids=IDS)
def test_redirect_to_a_denied_address_is_not_followed(server: ToolServer, number: int) -> None:
    """An allowed server redirects to the metadata service."""
    kind, config = CALLS[number]
    needs_its_package(kind, config)
    for path in ("", "/bucket/x.py", JOBS):
        server.routes[f"/away{path}"] = lambda seen: Answer(
            302, b"", {"Location": f"http://127.0.0.2:{server.port}/latest"}
        )
    said = "does not connect to 127.0.0.2: its NOETL_WORKER_EGRESS_DENY has 127.0.0.2"
    outcome = told_by(kind, at(config, server.url("/away")), denying("127.0.0.2"))
    assert (said in outcome) == (number in FOLLOWS), outcome
    assert [seen.path for seen in server.requests if "latest" in seen.path] == []


def told_by(kind: str, config: dict[str, Any], settings: ToolSettings = NOTHING_SET) -> str:
    try:
        return repr(run_tool(kind, config, settings=settings))
    except ToolError as error:
        return str(error)


@pytest.mark.parametrize(("kind", "config"), CALLS, ids=IDS)
def test_name_is_looked_up_once_and_the_address_that_was_checked_is_the_one_used(
    server: ToolServer, resolve: Resolve, kind: str, config: dict[str, Any]
) -> None:
    """A name resolves to an allowed address first, then to another."""
    needs_its_package(kind, config)
    asked = resolve({"rebinding.test": ["127.0.0.1"], "elsewhere.test": ["127.0.0.1"]})
    server.routes[f"/echo{JOBS}"] = lambda seen: Answer(404, b"")
    told_by(kind, at(config, server.url("/echo", host="rebinding.test")))
    assert asked.count("rebinding.test") == 1
    assert server.requests[0].headers["host"] in (f"rebinding.test:{server.port}", "elsewhere.test")


def test_certificate_is_asked_for_and_checked_by_the_name(resolve: Resolve) -> None:
    with ToolServer(tls=(PEM, PEM)) as server:
        asked = server.names_asked_for()
        resolve({"other.test": ["127.0.0.1"]})
        url = server.url("/echo", host="other.test")
        assert run_tool("http", {"url": url, "verify": False}).error is None
        with pytest.raises(ToolError, match=r"not valid for 'other\.test'"):
            run_tool("http", {"url": url, "ca_file": str(PEM)})
    assert asked == ["other.test", "other.test"]


def test_allowed_address_of_several_is_used_and_one_that_does_not_answer_holds_up_nothing(
    server: ToolServer, resolve: Resolve
) -> None:
    resolve({"mixed.test": ["169.254.169.254", "127.0.0.3", "127.0.0.1"]})
    result = run_tool("http", {"url": server.url("/echo", host="mixed.test")})
    assert result.error is None
    assert len(server.requests) == 1


def test_first_address_that_hangs_is_overtaken_by_the_next(server: ToolServer, resolve: Resolve) -> None:
    resolve({"slow.test": ["127.0.0.9", "127.0.0.1"]})
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.socket())
        full.bind(("127.0.0.9", server.port))
        full.listen(0)
        for _ in range(4):  # the queue is full: later connections wait for ever
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        result = run_tool("http", {"url": server.url("/echo", host="slow.test"), "connect_timeout": 5})
    assert (result.error, len(server.requests)) == (None, 1)


def test_name_that_cannot_be_resolved_is_a_connection_error(resolve: Resolve) -> None:
    resolve({"empty.test": []})
    with pytest.raises(ToolError) as caught:
        run_tool("http", {"url": "http://empty.test/"})
    assert (caught.value.kind, caught.value.retryable) == ("connection", True)


@pytest.fixture
def proxied(server: ToolServer, monkeypatch: pytest.MonkeyPatch) -> ToolServer:
    """The proxy of the worker."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, server.url(""))
    return server


def test_own_proxy_of_the_worker_is_not_checked(proxied: ToolServer) -> None:
    run_tool("http", {"url": "http://elsewhere.test/echo"}, settings=denying("loopback", "link-local"))
    assert len(proxied.requests) == 1


SPELLINGS = ["169.254.169.254", "2852039166", "0xa9fea9fe", "0XA9FEA9FE", "0xa9.254.169.254", "025177524776",
             "0251.0376.0251.0376", "169.254.43518", "169.16689662", "169.254.169.254.", "169%2e254.169.254",
             "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]"]  # fmt: skip


@pytest.mark.parametrize("kind", ["http", pytest.param("rhai", marks=pytest.mark.rust)])
@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_of_a_denied_address_is_asked_of_a_proxy(proxied: ToolServer, kind: str, host: str) -> None:
    """The address as a number, in hex, octal or shortened, by proxy."""
    url = f"http://{host}/latest"
    if kind == "http":
        with pytest.raises(ToolError, match=r"(does not connect to .*EGRESS_DENY has link-local|Invalid IPv4 address)"):
            run_tool("http", {"url": url})
    else:
        said = said_by_rhai(CALL.replace("{url}", url))
        assert said.endswith(("its NOETL_WORKER_EGRESS_DENY has link-local", "invalid authority"))
    assert proxied.requests == []


def test_spelling_of_an_allowed_address_is_asked_of_a_proxy(proxied: ToolServer) -> None:
    run_tool("http", {"url": "http://3221225985/echo"})
    assert len(proxied.requests) == 1


async def test_worker_still_asks_the_metadata_service_for_its_own_identity(identity: ToolServer) -> None:
    settings, clients = denying("loopback"), Clients()
    token = await Tokens(clients).google({}, settings)
    await clients.aclose()
    assert token == "mine"
    with pytest.raises(ToolError, match="does not connect to 127"):
        await arun_tool("http", {"url": identity.url("/echo")}, settings=settings)


# ── rhai, whose requests are Rust's ─────────────────────────────────────────────────────────────

CALL = 'http_get("{url}")'


def said_by_rhai(code: str, settings: ToolSettings = NOTHING_SET) -> str:
    pytest.importorskip("noetl_worker._core")
    answer = run_tool("rhai", {"code": code}, settings=settings).data
    assert (answer["ok"], answer["status"]) == (False, 0)
    return str(answer["error"])


@pytest.mark.rust
@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:a9fe:a9fe]", "2852039166", "0xa9fea9fe"])
@pytest.mark.parametrize(
    "call", [CALL, 'http_get_auth("{url}", "t")', 'http_post("{url}", #{})', 'http_delete("{url}")']
)
def test_script_of_rhai_does_not_connect_to_the_metadata_service(host: str, call: str) -> None:
    """A `rhai` script asks for the machine's identity."""
    said = said_by_rhai(call.replace("{url}", f"http://{host}/latest"))
    assert said.startswith("the worker does not connect to ")
    assert said.endswith("its NOETL_WORKER_EGRESS_DENY has link-local")


@pytest.mark.rust
def test_redirect_of_a_rhai_script_to_a_denied_address_is_not_followed(server: ToolServer) -> None:
    """The same by a redirect."""
    server.routes["/away"] = lambda seen: Answer(302, b"", {"Location": f"http://127.0.0.2:{server.port}/latest"})
    assert "does not connect to 127.0.0.2" in said_by_rhai(
        CALL.replace("{url}", server.url("/away")), denying("127.0.0.2")
    )
    assert [seen.path for seen in server.requests] == ["/away"]


@pytest.mark.rust
def test_rhai_checks_what_a_name_resolves_to(server: ToolServer) -> None:
    """The same by a name."""
    call = CALL.replace("{url}", server.url("/echo", host="localhost"))
    assert "does not connect to localhost (" in said_by_rhai(call, denying("loopback"))
    assert run_tool("rhai", {"code": call}).data["status"] == 200


# ── the worker's own ports ──────────────────────────────────────────────────────────────────────


def settings_without(own_ports: set[int]) -> ToolSettings:
    """Settings of a worker whose probes, or those of its supervisor, have these ports."""
    return ToolSettings(egress=EgressRule(own_ports=own_ports))


@asynccontextmanager
async def probes_of_a_worker() -> AsyncIterator[set[int]]:
    """The thread of a worker that serves its probes; the ports that it closes to tools."""
    settings = load_settings({"WORKER_METRICS_BIND": "127.0.0.1:0"})
    health = Health(in_flight=lambda: {"commands": ["another"]})
    own_ports: set[int] = set()
    keepalive = Keepalive(settings, health, Identity(settings), own_ports)
    await keepalive.serve()
    try:
        yield own_ports
    finally:
        await keepalive.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"])
async def test_request_to_the_workers_own_probes_is_refused(host: str) -> None:
    """A playbook reads /debug/inflight, which is for this machine: what other commands run."""
    async with probes_of_a_worker() as ports:
        (port,) = ports
        with pytest.raises(ToolError, match=f"port {port} is the worker's own"):
            await arun_tool("http", {"url": f"http://{host}:{port}/debug/inflight"}, settings=settings_without(ports))


@pytest.mark.rust
def test_rhai_script_does_not_connect_to_the_workers_own_probes(server: ToolServer) -> None:
    """A `rhai` script reads /debug/inflight, by a redirect too."""
    own_port = 1  # nobody listens there
    address = f"http://127.0.0.1:{own_port}/debug/inflight"
    server.routes["/away"] = lambda seen: Answer(302, b"", {"Location": address})
    for url in (address, server.url("/away")):
        assert said_by_rhai(CALL.replace("{url}", url), settings_without({own_port})).endswith(
            f"port {own_port} is the worker's own probe port: use another address"
        )


async def test_probes_of_the_other_workers_of_a_supervisor_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of `run --processes 3`: a command of one worker reads what runs in the next."""
    settings = load_settings({"WORKER_METRICS_BIND": "127.0.0.1:9464", "NOETL_WORKER_PROCESSES": "3"})
    supervisor = Supervisor(settings, {})
    ports = [9464, *(worker.port for worker in supervisor.workers)]
    [variables, *_] = [supervisor.variables(worker) for worker in supervisor.workers]
    monkeypatch.setenv(handed_down.PORTS, variables[handed_down.PORTS])
    try:
        async with probes_of_a_worker() as refused:
            for port in ports:
                with pytest.raises(ToolError, match=f"port {port} is the worker's own"):
                    await arun_tool(
                        "http", {"url": f"http://127.0.0.1:{port}/debug/inflight"}, settings=settings_without(refused)
                    )
    finally:
        supervisor.close()


def test_other_ports_of_this_machine_are_reached(server: ToolServer) -> None:
    """(no attack)"""
    assert run_tool("http", {"url": server.url("/echo")}).error is None
