"""The connection to NATS by itself: what becomes of it when nats-py has given up."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from nats.errors import Error as NatsError
from nats.errors import FlushTimeoutError

import virtual_time
from closed_port import closed_port
from faults.proxy import Proxy
from faults.test_names_and_keys import make_login
from integration.desk import connected
from integration.wire import serving
from noetl_worker.authoring.dev.nats_server import NatsServer, free_port
from noetl_worker.errors import JetStreamError
from noetl_worker.remote.jetstream.client import Client
from noetl_worker.remote.jetstream.connection import Connection, connect
from noetl_worker.settings.settings import Settings, load_settings
from patience import PATIENCE_S, until

INFO = b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"headers":true}\r\n'


def settings(url: str, **variables: str) -> Settings:
    return load_settings({"NATS_URL": url, **variables}, dotenv=Path(os.devnull))


Hear = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def speaking(hear: Hear, greetings: Iterator[bytes] | None = None) -> AsyncIterator[str]:
    """The address of a server that answers each PING; `hear` is given every line, and ends the connection by raising
    ConnectionResetError."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(INFO if greetings is None else next(greetings))
        while line := await reader.readline():
            await hear(line, writer)
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")

    async with serving(serve) as url:
        yield url.replace("http://", "nats://")


async def test_flush_and_drain_wait_for_what_was_sent_before_them() -> None:
    """nats-py's own PING overtakes it: the answer says nothing of a publish, and a drain ends before its UNSUB."""
    read: list[bytes] = []

    async def hear(line: bytes, _: asyncio.StreamWriter) -> None:
        read.extend(line.split()[:1])  # the body of a PUB is empty

    async with speaking(hear) as url, connected(settings(url)) as connection:
        del read[:]
        await connection.client.publish("a", b"")
        await connection.client.flush()
        subscription = await connection.client.subscribe("b")
        await subscription.drain()
        assert read == [b"PUB", b"PING", b"SUB", b"UNSUB", b"PING"]


async def test_flush_ends_with_its_connection() -> None:
    """In nats-py it waits for a PONG that never comes: after an outage the pull loop stood for up to 10 s more."""
    async with (
        NatsServer() as server,
        Proxy(server.port) as proxy,
        connected(settings(f"nats://127.0.0.1:{proxy.port}")) as connection,
    ):
        proxy.hold()
        flushing = asyncio.ensure_future(connection.client.flush(timeout=int(PATIENCE_S)))
        await asyncio.sleep(0)
        proxy.reset()
        with pytest.raises(NatsError, match="the connection ended"):
            await flushing
        with pytest.raises(NatsError, match="there is no connection"):
            await connection.client.flush()
        proxy.heal()
        await until(lambda: connection.is_connected, "connected again")
        await connection.client.flush(timeout=int(PATIENCE_S))


async def test_flush_ends_with_a_connection_that_is_not_made_again() -> None:
    """As a `nats` step has it."""

    pings: list[bytes] = []

    async def hear(line: bytes, _: asyncio.StreamWriter) -> None:
        pings.extend([line] if line == b"PING\r\n" else [])
        if len(pings) == 2:
            raise ConnectionResetError

    async with speaking(hear) as url:
        client = Client()
        await client.connect(url, allow_reconnect=False, connect_timeout=30)
        with pytest.raises(NatsError, match="the connection ended"):
            await client.flush(timeout=int(PATIENCE_S))
        assert client.is_closed


async def test_connection_goes_on_reading_after_a_flush_that_was_given_up() -> None:
    """nats-py's own stops without a word when the answer comes late."""
    is_given_up = asyncio.Event()

    async def hear(line: bytes, writer: asyncio.StreamWriter) -> None:
        if line.split()[:2] == [b"PUB", b"late"]:
            await is_given_up.wait()
        elif line.split()[:2] == [b"PUB", b"soon"]:
            writer.write(b"MSG a 1 2\r\nhi\r\n")

    async with speaking(hear) as url, connected(settings(url)) as connection:
        client, got = connection.client, asyncio.Queue[bytes]()
        await client.receive("a", lambda message: got.put_nowait(message.data))
        await client.publish("late", b"")
        with pytest.raises(FlushTimeoutError):
            await client.flush(timeout=0.05)  # type: ignore[arg-type]
        is_given_up.set()
        await client.flush(timeout=PATIENCE_S)
        await client.publish("soon", b"")
        assert await got.get() == b"hi"


async def test_write_to_a_connection_that_broke_unnoticed_is_an_oserror_and_the_connection_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """uvloop's RuntimeError ended whoever published in that moment: a pull, an ack, the plane of `dev`."""
    open_connection, writers = asyncio.open_connection, []

    async def kept(*given: Any, **named: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await open_connection(*given, **named)
        writers.append(writer)
        return reader, writer

    monkeypatch.setattr(asyncio, "open_connection", kept)
    async with NatsServer() as server, connected(settings(server.url)) as connection:
        is_back = asyncio.Event()
        connection.on_reconnected.append(is_back.set)
        await connection.client.flush()  # nothing else is being sent when it breaks
        writers[-1].transport.abort()
        while not is_back.is_set():
            with suppress(OSError):
                await connection.client.publish("a", b"")
            await asyncio.sleep(0)
        await connection.client.flush(timeout=PATIENCE_S)


async def test_reconnect_looks_the_name_of_the_server_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that is believed may be that of a server which is gone."""
    asked: list[str] = []
    of_the_system = socket.getaddrinfo

    def getaddrinfo(host: str, *rest: Any, **options: Any) -> Any:
        asked.append(host)
        return of_the_system("127.0.0.1", *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with (
        NatsServer() as server,
        Proxy(server.port) as proxy,
        connected(settings(f"nats://moved.test:{proxy.port}")) as connection,
    ):
        is_back = asyncio.Event()
        connection.on_reconnected.append(is_back.set)
        assert asked == ["moved.test"]
        proxy.reset()
        await is_back.wait()
        assert asked == ["moved.test"] * 2


@pytest.mark.parametrize("greeting", [b"INFO []\r\n", b"INFO " + b"x" * 200_000 + b"\r\n"], ids=["list", "long"])
async def test_reconnect_goes_on_after_a_server_that_greets_with_something_else(greeting: bytes) -> None:
    """What nats-py does not expect ended its reconnecting for good; so did a key file that was being written anew."""
    greetings = iter([INFO, greeting, INFO])

    async def hear(line: bytes, _: asyncio.StreamWriter) -> None:
        if line.startswith(b"PUB end"):
            raise ConnectionResetError

    async with speaking(hear, greetings) as url, connected(settings(url)) as connection:
        is_back = asyncio.Event()
        connection.on_reconnected.append(is_back.set)
        await connection.client.publish("end", b"")
        await is_back.wait()
        assert (next(greetings, None), connection.is_connected) == (None, True)


async def test_request_is_answered_again_after_a_reconnect_with_other_permissions(tmp_path: Path) -> None:
    """What this login might not subscribe to once, it was thought never to get an answer on."""
    allowed = 'authorization { users: [{user: a, password: b, permissions: {publish: ">", subscribe: %s}}] }'
    port = free_port()
    given = settings(f"nats://a:b@127.0.0.1:{port}")
    async with NatsServer(port=port, config=allowed % '{allow: ">", deny: "_INBOX.>"}'):
        connection = await connect(given, "test")
        is_back = asyncio.Event()
        connection.on_reconnected.append(is_back.set)
        with pytest.raises(NatsError):
            await connection.client.request("$JS.API.INFO", timeout=PATIENCE_S)
    async with NatsServer(port=port, config=allowed % '">"'):
        await is_back.wait()
        assert (await connection.client.request("$JS.API.INFO", timeout=PATIENCE_S)).data
        await connection.close()


async def test_login_that_has_ended_is_the_reason_why_nats_is_not_reached() -> None:
    """A server ends such a connection without a word: "unexpected EOF" was all."""
    nkeys = pytest.importorskip("nkeys")
    claims = base64.urlsafe_b64encode(b'{"exp": 1000000000}').decode().rstrip("=")
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER).decode()
    given = settings(f"nats://127.0.0.1:{closed_port()}", NATS_JWT=f"eyJhbGciOiJub25lIn0.{claims}.c2ln", NATS_SEED=seed)
    with pytest.raises(JetStreamError, match=r"^NATS_JWT has expired"):
        await connect(given, "test", attempts=1)


@pytest.mark.parametrize("end", ["drain", "unsubscribe"])
async def test_receiver_gets_what_is_published_until_its_subscription_ends_and_is_kept_no_longer(end: str) -> None:
    """Each pause of the pull loop ends one subscription, and begins another."""
    async with NatsServer() as server, connected(settings(server.url)) as connection:
        client, got = connection.client, asyncio.Queue[bytes]()
        for number in (b"1", b"2"):
            subscription = await client.receive("a", lambda message: got.put_nowait(message.data))
            await client.publish("a", number)
            assert await got.get() == number
            await getattr(subscription, end)()
        await client.publish("a", b"3")
        await client.flush()
        assert (got.empty(), client.receivers) == (True, {})


async def test_connection_that_could_not_be_reopened_is_closed_still_and_is_reopened_later() -> None:
    """The keepalive looks at `is_closed`: one refused attempt was its last one, and deliveries went to others."""
    async with NatsServer() as server, connected(settings(server.url)) as connection:
        await connection.client.close()
        await connection.reopen(settings(f"nats://127.0.0.1:{closed_port()}"))
        assert connection.client.is_closed
        await connection.reopen(settings(server.url))
        assert connection.is_connected


async def test_server_that_goes_away_while_the_connection_is_closed_does_not_spoil_the_end() -> None:
    """What `close` raised replaced how the worker had ended."""

    class Gone:
        is_connected, is_closed = True, False

        async def drain(self) -> None:
            raise ConnectionResetError("Connection lost")

        async def close(self) -> None:
            raise ConnectionResetError("Connection lost")

    connection = Connection("test")
    connection.client = cast(Any, Gone())
    await connection.close()


@virtual_time.PASSES
async def test_server_that_stands_still_with_much_to_be_read_does_not_hold_up_the_end() -> None:
    """Cancelled, nats-py's drain goes on to flush for 10 s, and wait_for waited for that; close has no limit at all."""

    class Full:
        is_connected, is_closed = True, False

        async def drain(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(10)

        async def close(self) -> None:
            await asyncio.Event().wait()

    connection = Connection("test")
    connection.client = cast(Any, Full())
    closing = asyncio.ensure_future(connection.close())
    done, _ = await asyncio.wait({closing}, timeout=8)
    assert done, "the seconds are virtual"


# ── logins and certificates ──

CERTIFICATES = Path(__file__).with_name("certificates")


async def lets_in(url: str, **variables: str) -> bool:
    """Whether the server takes this login. Raises JetStreamError where it cannot be reached."""
    try:
        connection = await connect(settings(url, **variables), "test", attempts=1)
    except JetStreamError as error:
        if "refuses the login" in str(error):
            return False
        raise
    await connection.client.flush(timeout=PATIENCE_S)
    await connection.close()
    return True


def user_key() -> Any:
    nkeys = pytest.importorskip("nkeys")
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))


async def test_nkey_seed_logs_in_as_text_and_from_a_file_and_another_is_refused(tmp_path: Path) -> None:
    user, other = user_key(), user_key()
    file = tmp_path / "user.nk"
    file.write_text(user.seed.decode() + "\n")
    config = f"authorization {{ users: [{{nkey: {user.public_key.decode()}}}] }}"
    async with NatsServer(config=config) as server:
        assert await lets_in(server.url, NATS_SEED=user.seed.decode())
        assert await lets_in(server.url, NATS_SEED_FILE=str(file))
        assert await lets_in(server.url, NATS_NKEY=str(file))
        assert not await lets_in(server.url, NATS_SEED=other.seed.decode())
        assert not await lets_in(server.url)
    gc.collect()  # what refused attempts left open is told here


async def test_jwt_logs_in_with_the_seed_that_it_is_for(tmp_path: Path) -> None:
    creds, seed_file = tmp_path / "a.creds", tmp_path / "a.nk"
    config = make_login(creds)
    token, seed = (block.strip() for block in re.findall(r"-----\n(.+?)\n------END", creds.read_text()))
    seed_file.write_text(f"{seed}\n")
    (tmp_path / "a.json").write_text(json.dumps({"user_jwt": token, "nkey": str(seed_file)}))
    async with NatsServer(config=config) as server:
        assert await lets_in(server.url, NATS_JWT=token, NATS_SEED=seed)
        assert await lets_in(server.url, NATS_JWT=token, NATS_NKEY=str(seed_file))
        assert await lets_in(server.url, NATS_CONTEXT=str(tmp_path / "a.json"))
        assert not await lets_in(server.url, NATS_JWT=token, NATS_SEED=user_key().seed.decode())
    gc.collect()


async def test_nats_has_an_authority_and_a_certificate_of_its_own_beside_the_plane_s() -> None:
    valid, foreign, authority = (str(CERTIFICATES / f"{name}.pem") for name in ("valid", "foreign", "ca"))
    tls = f'tls {{ cert_file: "{valid}", key_file: "{valid}", ca_file: "{authority}", verify: true }}'

    def of_plane(certificate: str, authority: str) -> dict[str, str]:
        pair = dict.fromkeys(("NOETL_TLS_CLIENT_CERT", "NOETL_TLS_CLIENT_KEY"), certificate)
        return {"NOETL_TLS_CA": authority, **pair}

    plane_s = of_plane(foreign, str(CERTIFICATES / "foreign_ca.pem"))
    async with NatsServer(config=tls) as server:
        url = server.url.replace("nats://", "tls://")
        assert await lets_in(url, **plane_s, NATS_CA=authority, NATS_CERT=valid, NATS_KEY=valid)
        assert await lets_in(url, **of_plane(valid, authority)), "without any of its own, NATS has the plane's"
        with pytest.raises(JetStreamError, match="CERTIFICATE_VERIFY_FAILED"):
            await lets_in(url, **plane_s)
    gc.collect()
