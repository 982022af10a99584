"""Servers that do what no server should, and the two parsers side by side: same answers, same errors."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration.processes import until
from integration.wire import Script, serving, transport
from noetl_worker.errors import MaybeProcessed, NotSent
from noetl_worker.remote.transport import on_loop
from noetl_worker.remote.transport.transport import Response, Transport
from patience import PATIENCE_S

PEM = Path(__file__, "../../tools/loopback.pem").resolve()
OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nRetry-After: 7\r\nContent-Length: 8\r\n\r\n{"a": 1}'


@pytest.fixture(params=["httptools", "h11"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "h11":  # as it is imported where there is no httptools
        monkeypatch.setitem(sys.modules, "httptools", None)
        importlib.reload(on_loop)
    else:
        pytest.importorskip("httptools")
    yield
    if request.param == "h11":
        monkeypatch.undo()
        importlib.reload(on_loop)


async def head_of(reader: asyncio.StreamReader) -> bytes:
    """A request, its body read too."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if b": " in line)
    await reader.readexactly(int(lines.get(b"content-length", b"0")))
    return head


async def always_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await head_of(reader)
        writer.write(OK)
        await writer.drain()


def noting(heads: list[bytes]) -> Script:
    """As `always_ok`; the head of each request is put into `heads`."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(await head_of(reader))
            writer.write(OK)

    return script


def once(*parts: bytes) -> Script:
    """Reads one request, writes these one after the other, and closes the connection."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return script


async def post(wire: Transport, url: str, timeout_s: float = PATIENCE_S) -> Response:
    return await wire.send("POST", f"{url}/api/x?y=1", {"content-type": "application/json"}, b"{}", timeout_s)


@dataclass(frozen=True)
class Case:
    name: str
    parts: tuple[bytes, ...]
    """Written one after the other; then the connection is closed."""
    status: int | None = 200
    """None: MaybeProcessed."""
    body: bytes = b'{"a": 1}'


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CASES = [
    Case("whole", (OK,)),
    Case("a byte at a time", tuple(OK[at : at + 1] for at in range(len(OK)))),
    Case(
        "chunks with extensions and trailers", (CHUNKED, b'4;ext="x"\r\n{"a"\r\n', b"4\r\n: 1}\r\n0\r\nX-T: 1\r\n\r\n")
    ),
    Case("100 before the answer", (b"HTTP/1.1 100 Continue\r\n\r\n", OK)),
    Case("early hints before the answer", (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK,)),
    Case("no length", (b"HTTP/1.1 200 OK\r\n\r\n", b'{"a"', b": 1}")),
    Case("HTTP/1.0", (b'HTTP/1.0 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}',)),
    Case("no content", (b"HTTP/1.1 204 No Content\r\n\r\n",), 204, b""),
    Case("an empty answer", (b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",), 202, b""),
    Case("a redirect is an answer", (b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n",), 302, b""),
    Case("closed without a word", (), None),
    Case("closed in the head", (OK[:20],), None),
    Case("closed in the body", (OK[:-2],), None),
    Case("closed in a chunk", (CHUNKED + b"10\r\n{",), None),
    Case("no HTTP", (b"SSH-2.0-OpenSSH_9.6\r\n\r\n",), None),
    Case("a status that is no number", (b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",), None),
    Case("two lengths", (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",), None),
    Case("a chunk size that is none", (CHUNKED + b"zz\r\n{}\r\n",), None),
    Case(
        "a header of a megabyte",
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"a" * 1_000_000, b"\r\nContent-Length: 0\r\n\r\n"),
        None,
    ),
    Case("a head of a megabyte", (b"HTTP/1.1 200 OK\r\n", b"X-Many: a\r\n" * 100_000, b"\r\n"), None),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_both_parsers_read_the_same(case: Case) -> None:
    async with serving(once(*case.parts)) as url, transport() as wire:
        if case.status is None:
            with pytest.raises(MaybeProcessed):
                await post(wire, url)
            return
        answer = await post(wire, url)
        assert (answer.status, answer.body) == (case.status, case.body)
        if case.name == "whole":
            assert answer.headers["retry-after"] == "7"
            assert answer.headers.get("content-type") == "application/json"


async def test_second_answer_to_one_request_is_given_to_nobody() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            path = (await head_of(reader)).split(b" ")[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
            await writer.drain()

    async with serving(script) as url, transport() as wire:
        for number in range(3):
            answer = await wire.send("GET", f"{url}/{number}", {}, None, PATIENCE_S)
            assert answer.body == f"/{number}".encode()


@pytest.mark.parametrize(
    ("part", "drip"),
    [(b"", b""), (OK[:10], b""), (OK[:-1], b""), (CHUNKED, b""), (CHUNKED, b"1\r\nx\r\n")],
    ids=["nothing", "a part of the head", "all but a byte", "no chunk", "a drip that never pauses"],
)
async def test_answer_that_does_not_end_is_given_up_at_the_deadline_and_not_told_as_a_failed_connect(
    part: bytes, drip: bytes
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(part)
        while True:
            await asyncio.sleep(0.01)
            writer.write(drip)
            await writer.drain()

    async with serving(script) as url, transport() as wire:
        with pytest.raises(MaybeProcessed, match=r"no complete answer in .*0\.2 s") as told:
            await post(wire, url, timeout_s=0.2)
        assert "connect" not in str(told.value).lower()


FLOODS = {
    "trailers": ((CHUNKED, b"2\r\n{}\r\n0\r\n"), b"a: b\r\n"),
    "one trailer": ((CHUNKED, b"2\r\n{}\r\n0\r\na: "), b"bbbbbbbb"),
    "trailers after much content": ((CHUNKED, b"4000000\r\n", *[b" " * (1 << 16)] * 1024, b"\r\n0\r\n"), b"a: b\r\n"),
    "interim answers": ((), b"HTTP/1.1 102 Processing\r\n\r\n"),
    "interim answers with headers": ((), b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "chunks of one byte": ((CHUNKED,), b"1\r\nx\r\n"),
    "chunks with extensions": ((CHUNKED,), b"1;" + b"e" * 100 + b"\r\nx\r\n"),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_flood_beside_the_content_of_an_answer_is_ended_by_its_size(flood: str) -> None:
    """A server that does not stop: what is read of it is bounded, whatever the deadline; buffers of the system are
    some megabytes."""
    head, part = FLOODS[flood]
    sent, block = 0, part * (1 << 16)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await head_of(reader)
        for one in head:
            writer.write(one)
        while sent < 1 << 26:
            writer.write(block)
            await writer.drain()
            sent += len(block)
        await asyncio.Event().wait()

    async with serving(script) as url, transport() as wire:
        with pytest.raises(MaybeProcessed, match=r"cannot be read|beside its content"):
            await post(wire, url, timeout_s=30)
    assert sent < 1 << 24


async def test_connection_that_the_server_has_closed_is_not_used_again() -> None:
    closed = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(OK)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        closed.set()

    async with serving(script) as url, transport() as wire:
        for _ in range(3):
            closed.clear()
            assert (await post(wire, url)).status == 200
            await closed.wait()
            await asyncio.sleep(0)  # the loop reads the end


async def test_closed_connections_are_freed_without_the_garbage_collector() -> None:
    """It seldom runs in a worker: some hundred connections a quarter of an hour were memory that grew (F24)."""

    def objects() -> int:
        # Of some types of others' `__module__` is no text.
        return sum(f"{type(one).__module__}".startswith("noetl_worker.remote.transport.") for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        async with serving(once(OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))) as url, transport() as wire:
            before = objects()
            for _ in range(30):
                assert (await post(wire, url)).status == 200
            await until(lambda: objects() <= before + 2, "the end of all but the last connection")
    finally:
        gc.enable()


async def test_kept_connection_serves_many_requests() -> None:
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await always_ok(reader, writer)

    async with serving(script) as url, transport() as wire:
        for _ in range(20):
            assert (await post(wire, url)).status == 200
    assert connections == 1


async def test_requests_over_the_limit_wait_for_a_connection_and_are_unsent_when_none_comes() -> None:
    free, arrived = asyncio.Event(), asyncio.Queue[None]()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await head_of(reader)
            arrived.put_nowait(None)
            await free.wait()
            writer.write(OK)

    async with serving(script) as url, transport() as wire:
        holding = [asyncio.ensure_future(post(wire, url)) for _ in range(2)]
        for _ in holding:
            await arrived.get()
        with pytest.raises((NotSent, MaybeProcessed)):
            await post(wire, url, timeout_s=0.1)
        waiting = asyncio.ensure_future(post(wire, url))
        free.set()
        assert [one.status for one in await asyncio.gather(*holding, waiting)] == [200] * 3


async def test_cancelled_request_leaves_a_transport_that_works() -> None:
    arrived, answers = asyncio.Event(), [False, True, True]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await head_of(reader)
            arrived.set()
            if answers.pop(0):
                writer.write(OK)
            else:
                await asyncio.Event().wait()

    async with serving(script) as url, transport() as wire:
        asking = asyncio.ensure_future(post(wire, url))
        await arrived.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert [(await post(wire, url)).status for _ in range(2)] == [200, 200]


async def test_request_whose_connection_is_closed_before_its_turn_to_be_written_is_unsent() -> None:
    """Requests of one turn of the loop are written together, at its end."""
    heads: list[bytes] = []
    async with serving(noting(heads)) as url, transport() as wire:
        await post(wire, url)
        asking, closing = asyncio.ensure_future(post(wire, url)), wire.close()
        asyncio.get_running_loop().call_soon(closing.send, None)  # behind the request, and before it is written
        with pytest.raises(NotSent):
            await asking
        closing.close()
    assert len(heads) == 1


async def test_early_answer_ends_the_sending_of_a_large_body() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        await reader.read(1_000_000)

    async with serving(script) as url, transport() as wire:
        try:
            answer = await wire.send("PUT", f"{url}/r", {}, (b"x" * 40_000_000,), PATIENCE_S)
        except MaybeProcessed:
            return  # the connection broke under the body before the answer was seen
        assert answer.status == 413


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/x", "http://name.invalid/x", "https://127.0.0.1:1/x", "ftp://h/x", "nonsense"]
)
async def test_what_cannot_be_reached_is_unsent(url: str) -> None:
    async with transport() as wire:
        with pytest.raises(NotSent):
            await wire.send("POST", url, {}, b"{}", PATIENCE_S)


@pytest.mark.parametrize(
    ("path", "headers"), [("/a b", {}), ("/a\r\nx: y", {}), ("/x", {"x": "1\r\ny: 2"}), ("/x", {"x\r\ny": "2"})]
)
async def test_a_request_cannot_be_split_into_two(path: str, headers: dict[str, str]) -> None:
    heads: list[bytes] = []
    async with serving(noting(heads)) as url, transport() as wire:
        with contextlib.suppress(NotSent, MaybeProcessed):
            await wire.send("GET", url + path, headers, None, PATIENCE_S)
    assert all(b"\r\ny: 2" not in head and b"\r\nx: y" not in head for head in heads)


CERTIFICATES = Path(__file__).with_name("certificates")


def server_context(certificate: Path, *, clients_of: Path | None = None) -> ssl.SSLContext:
    """A server with this certificate; it asks its clients for one of the authority `clients_of`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if clients_of is not None:
        context.load_verify_locations(clients_of)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_certificate_of_the_named_authority_is_trusted_and_no_other() -> None:
    async with serving(always_ok, server_context(PEM)) as url:
        async with transport(NOETL_TLS_CA=str(PEM)) as wire:
            assert [(await post(wire, url)).status for _ in range(2)] == [200, 200]
        async with transport() as wire:
            with pytest.raises(NotSent, match=r"(?i)certificate"):
                await post(wire, url)


def named(*, client: str = "") -> dict[str, str]:
    pair = dict.fromkeys(("NOETL_TLS_CLIENT_CERT", "NOETL_TLS_CLIENT_KEY"), str(CERTIFICATES / f"{client}.pem"))
    return {"NOETL_TLS_CA": str(CERTIFICATES / "ca.pem"), **(pair if client else {})}


@pytest.mark.parametrize(
    ("certificate", "refused"), [("valid", None), ("expired", "expired"), ("foreign", "unable to get local issuer")]
)
async def test_plane_s_certificate_has_to_be_valid_and_of_the_named_authority(
    certificate: str, refused: str | None
) -> None:
    context = server_context(CERTIFICATES / f"{certificate}.pem")
    async with serving(always_ok, context) as url, transport(**named()) as wire:
        if refused is None:
            assert (await post(wire, url)).status == 200
            return
        with pytest.raises(NotSent, match=rf"(?i)certificate.*{refused}"):
            await post(wire, url)


@pytest.mark.parametrize("client", ["valid", "", "expired", "foreign"])
async def test_plane_that_asks_for_a_certificate_gets_ours_and_refuses_any_other(client: str) -> None:
    context = server_context(CERTIFICATES / "valid.pem", clients_of=CERTIFICATES / "ca.pem")
    async with serving(always_ok, context) as url, transport(**named(client=client)) as wire:
        if client == "valid":
            assert [(await post(wire, url)).status for _ in range(2)] == [200, 200]
            return
        # With TLS 1.3 the server looks at it after the client's handshake: the request may have been written.
        with pytest.raises((NotSent, MaybeProcessed)):
            await post(wire, url)


async def test_https_to_a_server_without_tls_is_unsent() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(script) as url, transport() as wire:
        with pytest.raises(NotSent):
            await post(wire, url.replace("http://", "https://"))


async def test_name_and_password_of_an_address_are_sent_as_basic_credentials() -> None:
    heads: list[bytes] = []
    async with serving(noting(heads)) as url, transport() as wire:
        assert (await post(wire, url.replace("http://", "http://me:p%40ss@"))).status == 200
    assert b"authorization: basic bwu6cebzcw==\r\n" in heads[0].lower()


async def test_place_of_a_request_that_is_given_up_goes_to_the_next_one() -> None:
    """The connection is lost and a waiting request cancelled in the same step: the one behind it waited for ever."""
    is_asked, is_cut = asyncio.Event(), asyncio.Event()

    async def cut_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        if not is_cut.is_set():
            is_asked.set()
            await is_cut.wait()
            return
        writer.write(OK)
        await writer.drain()
        await always_ok(reader, writer)

    async with serving(cut_once) as url, transport(max_connections=1) as wire:

        async def first() -> None:
            try:
                await wire.send("GET", url, {}, None, PATIENCE_S)
            except MaybeProcessed:
                given_up.cancel()  # its turn has come, and it has not run yet

        asked = asyncio.ensure_future(first())
        await is_asked.wait()
        given_up = asyncio.ensure_future(wire.send("GET", url, {}, None, PATIENCE_S))
        behind = asyncio.ensure_future(wire.send("GET", url, {}, None, 2.0))
        for _ in range(5):
            await asyncio.sleep(0)
        is_cut.set()
        answer = await behind
        await asyncio.gather(asked, given_up, return_exceptions=True)
    assert answer.status == 200
    assert given_up.cancelled()
