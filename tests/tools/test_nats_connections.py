"""Connections of the `nats` tool: shared by credential, made anew, refused logins and permissions."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest
from nats.js import JetStreamContext

from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.errors import ConfigurationError, CredentialError, ToolError
from noetl_worker.models import ToolResult, ToolStatus
from noetl_worker.testing import arun_tool, run_tool, tool_context
from noetl_worker.tools.kinds.nats.connections import Address, Connections
from noetl_worker.tools.kinds.nats.nats import NatsTool
from noetl_worker.tools.registry import Registry
from patience import PATIENCE_S

from .nats_service import Session, client
from .processes import open_descriptors, with_time

# ── connections and credentials ─────────────────────────────────────────────────────────────────


GET = {"operation": "kv_get", "bucket": "none", "key": "k"}


def get(*, credentials: Any = None, secrets: set[str] | None = None, **config: Any) -> ToolResult:
    """By a tool of its own."""
    return run_tool(NatsTool(), {**GET, **config}, credentials=credentials, secrets=secrets)


async def kind_of_failure(registry: Registry, url: str) -> str:
    """`not_found` when the server was reached: there is no such bucket."""
    with pytest.raises(ToolError) as caught:
        await registry.run_tool("nats", {**GET, "url": url}, tool_context())
    return caught.value.kind


async def number_of_next(session: Session) -> int:
    """What the server calls the connection that is made now: it counts them."""
    async with client(session.server) as connection:
        return int(connection.client_id)


async def test_commands_of_one_credential_share_a_connection(session: Session) -> None:
    """A connection per call churned the server."""
    bucket = await session.bucket()
    first = await number_of_next(session)
    calls = [session.call("kv_put", bucket=bucket, key=f"k{number}", value=number) for number in range(20)]
    await asyncio.gather(*calls)
    # One for all of them, and that of the question. A connect that a busy machine ends in time has one number more.
    assert await number_of_next(session) < first + 10


async def test_the_surplus_of_unused_connections_is_closed(nats_server: NatsServer) -> None:
    connections = Connections(max_idle=1)
    made = []
    for url in (nats_server.url, f"{nats_server.url}/", f"nats://localhost:{nats_server.port}"):
        async with connections.lease(Address((url,), "all", "p@ss/word")) as connection:
            made.append(connection)
    assert [connection.is_closed for connection in made] == [True, True, False]
    await connections.aclose()
    assert made[-1].is_closed


async def test_aclose_closes_the_connections(session: Session) -> None:
    bucket = await session.bucket()
    await session.call("kv_keys", bucket=bucket)
    async with session.leased() as connection:
        assert not connection.is_closed
    await session.registry.aclose()
    assert connection.is_closed
    await session.call("kv_keys", bucket=bucket)  # and a later call makes a new one


def test_a_tool_on_a_second_event_loop_opens_a_connection_of_its_own() -> None:
    connections = Connections()
    registry = Registry([NatsTool(connections)], plugins=False)

    async def leased(url: str) -> Any:
        async with connections.lease(Address((url,))) as connection:
            return connection

    first = asyncio.new_event_loop()
    server = NatsServer()
    try:
        first.run_until_complete(server.start())
        assert first.run_until_complete(kind_of_failure(registry, server.url)) == "not_found"
        connection = first.run_until_complete(leased(server.url))

        async def second() -> None:
            assert await kind_of_failure(registry, server.url) == "not_found"
            await registry.aclose()

        asyncio.run(second())
        first.run_until_complete(connection.close())
    finally:
        first.run_until_complete(server.close())
        first.close()


async def test_a_lost_connection_is_made_anew() -> None:
    async with NatsServer() as server:
        registry = Registry([NatsTool()], plugins=False)
        assert await kind_of_failure(registry, server.url) == "not_found"
        await server.stop()
        assert await kind_of_failure(registry, server.url) == "connection"
        await server.start()
        assert await kind_of_failure(registry, server.url) == "not_found"
        await registry.aclose()


async def test_wrong_password_is_an_auth_failure_that_does_not_show_it(session: Session) -> None:
    error = await session.refused("kv_keys", bucket="none", auth="nats_wrong")
    reason = f"cannot connect to {session.server.url}: nats: 'Authorization Violation'"
    assert (str(error), error.kind, error.retryable) == (reason, "auth", False)


@pytest.mark.parametrize(
    ("resets", "kind", "retryable", "connections"), [(2, "auth", False, 3), (99, "connection", True, 4)]
)
async def test_a_reset_during_the_login_is_asked_again_for_its_reason(
    resets: int, kind: str, retryable: bool, connections: int
) -> None:
    """A server that refuses a login closes at once: what it said is lost when more of ours is on the way to it."""
    served = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(writer)
        writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"auth_required":true}\r\n')
        await reader.readuntil(b"PING\r\n")
        if len(served) > resets:
            writer.write(b"-ERR 'Authorization Violation'\r\n")
        else:
            held = writer.get_extra_info("socket")
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing is a reset
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listening:
        url = f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        with pytest.raises(ToolError) as caught:
            await arun_tool(NatsTool(), {**GET, "url": url})
    assert (caught.value.kind, caught.value.retryable) == (kind, retryable)
    assert len(served) == connections


def test_a_login_inside_the_url_is_not_shown_and_its_password_is_a_secret(nats_server: NatsServer) -> None:
    secrets: set[str] = set()
    url = f"nats://all:not-this@127.0.0.1:{nats_server.port}"
    with pytest.raises(ToolError) as caught:
        get(url=url, secrets=secrets)
    assert "not-this" not in str(caught.value)
    assert secrets == {"not-this"}


async def test_a_missing_permission_is_told_and_not_only_a_timeout(session: Session) -> None:
    error = await with_time(
        lambda s: session.refused("js_stream_info", auth="nats_narrow", stream="S", timeout=s),
        lambda error: error.kind == "auth",
    )
    assert (error.kind, error.code) == ("auth", "permissions_violation")
    assert 'js_stream_info failed: nats: permissions violation for publish to "$js.api.stream.info.s"' in str(error)


def test_an_unreachable_server_is_a_connection_failure() -> None:
    with pytest.raises(ToolError) as caught:
        get(url="nats://127.0.0.1:1")
    assert (caught.value.kind, caught.value.retryable) == ("connection", True)
    assert str(caught.value).startswith("cannot connect to nats://127.0.0.1:1: ")


async def test_the_whole_call_ends_with_its_timeout(session: Session) -> None:
    stream, _, consumer = await session.stream()
    result = await session.result("js_consume", stream=stream, consumer=consumer, timeout_ms=5000, timeout=0.1)
    assert result.status is ToolStatus.TIMEOUT


@pytest.mark.parametrize(
    ("credential", "message"),
    [
        (
            {"type": "nats", "user": "all", "password": "p@ss/word"},
            "nats: the credential has no 'url'; register it again with one, or give 'url'",
        ),
        (
            {"url": "nats://127.0.0.1:1", "creds": "only words"},
            "nats: 'creds' must be the whole text of a .creds file: a user JWT and an nkey seed",
        ),
    ],
)
def test_credential_that_lacks_a_part_is_refused(credential: dict[str, Any], message: str) -> None:
    with pytest.raises(CredentialError) as caught:
        get(auth="broken", credentials={"broken": credential})
    assert str(caught.value) == message


def test_an_nkey_that_is_none_is_an_auth_failure_without_it(nats_server: NatsServer) -> None:
    pytest.importorskip("nkeys")
    with pytest.raises(ToolError) as caught:
        get(auth={"url": nats_server.url, "nkey": "not a seed"})
    assert caught.value.kind == "auth"
    assert "not a seed" not in str(caught.value)


async def test_an_nkey_opens_a_server_that_asks_for_one() -> None:
    nkeys = pytest.importorskip("nkeys")
    seed = b"SUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4GY"
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    async with NatsServer(config=f'authorization {{ users: [ {{ nkey: "{public}" }} ] }}') as server:
        aliases = {"signed": {"url": server.url, "nkey": seed.decode()}}
        with pytest.raises(ToolError) as caught:
            await arun_tool(NatsTool(), {**GET, "auth": "signed"}, credentials=aliases)
        assert caught.value.kind == "not_found", "the server was reached"


def test_nkeys_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError) as caught:
        get(auth={"url": "nats://127.0.0.1:1", "nkey": "SU"})
    assert str(caught.value) == (
        "nats: a credential with 'creds' or 'nkey' needs nkeys: pip install 'noetl-worker[nkeys]'"
    )


async def test_a_cancellation_that_meets_the_new_connection_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio.wait_for loses it, up to Python 3.11: the operation was carried out all the same."""
    calls: list[asyncio.Future[None]] = []

    async def connected(*_: object, **__: object) -> None:
        asyncio.get_running_loop().call_soon(lambda: calls[0].cancel())

    monkeypatch.setattr("nats.aio.client.Client.connect", connected)

    async def operation() -> None:
        async with Connections().lease(Address(("nats://127.0.0.1:4222",))):
            await asyncio.Event().wait()

    calls.append(asyncio.ensure_future(operation()))
    await asyncio.wait(calls, timeout=PATIENCE_S)
    assert calls[0].cancelled()


async def test_a_permission_that_an_earlier_command_lacked_is_not_told_of_a_timeout(session: Session) -> None:
    await session.connection.subscribe("open.deaf")
    await session.connection.flush()
    narrow = Address((session.server.url,), "narrow", "narrow-word")
    async with session.connections.lease(narrow) as connection:
        for subject in ("shut.a", "shut.b"):
            await connection.publish(subject, b"")
        await connection.flush()
    late = await session.result("js_publish", auth="nats_narrow", subject="open.deaf", data=1, timeout=0.3)
    assert late.status is ToolStatus.TIMEOUT


async def test_a_watch_cancelled_while_it_is_opened_leaves_no_subscription(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is shared: it would take every change of the bucket for as long as it is open."""
    bucket = await session.bucket()
    await session.call("kv_put", bucket=bucket, key="a", value=1)
    async with session.leased() as connection:
        before = set(connection._subs)
    asked, go_on = asyncio.Event(), asyncio.Event()
    consumer_info = JetStreamContext.PushSubscription.consumer_info

    async def slowly(subscription: Any) -> Any:
        asked.set()
        await go_on.wait()
        return await consumer_info(subscription)

    monkeypatch.setattr(JetStreamContext.PushSubscription, "consumer_info", slowly)
    call = asyncio.ensure_future(session.call("kv_keys", bucket=bucket))
    await asked.wait()
    call.cancel()
    asyncio.get_running_loop().call_later(0.05, go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await call
    assert set(connection._subs) == before


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancellation_that_meets_the_closing_of_the_surplus_leaves_no_socket_open(
    nats_server: NatsServer, steps: int
) -> None:
    connections, ready, over = Connections(max_idle=0), asyncio.Event(), asyncio.Event()
    before = open_descriptors()

    async def operation() -> None:
        async with connections.lease(Address((nats_server.url,), "all", "p@ss/word")):
            ready.set()
            await over.wait()

    call = asyncio.ensure_future(operation())
    await ready.wait()
    assert open_descriptors() - before
    over.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait({call})
    for _ in range(3):  # asyncio closes a socket in its next turn
        await asyncio.sleep(0)
    assert open_descriptors() - before == set()
