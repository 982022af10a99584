"""A server chooses the encoding of its answer, and so the work of the loop."""

from __future__ import annotations

import asyncio
import encodings.aliases
import gzip
import hashlib
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from loops import Threads
from noetl_worker.testing import arun_tool
from noetl_worker.tools.http import answer as http_answer
from noetl_worker.tools.http.charsets import decoded, find_codec
from noetl_worker.tools.kinds.artifact.artifact import ArtifactTool
from noetl_worker.tools.kinds.http.http import HttpTool
from noetl_worker.tools.kinds.mcp.mcp import McpTool

LARGE = 2 << 20


def answering(body: bytes, **headers: str) -> httpx.MockTransport:
    async def pieces() -> Any:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.MockTransport(lambda request: httpx.Response(200, headers=named, content=pieces()))


async def run(tool: Any, **config: Any) -> Any:
    return (await arun_tool(tool, config)).data


@pytest.mark.parametrize(
    "charset", ["punycode", "idna", "utf-7", "unicode_escape", "raw_unicode_escape", "rot13", "hex"]
)
async def test_charset_off_the_list_is_utf8_with_a_note(charset: str) -> None:
    body = b'"\\u00e9-\xc3\xa9-+AGE-"\xff'
    transport = answering(body, content_type=f"text/plain; charset={charset}")
    data = await run(HttpTool(transport), url="http://a.test/", response_type="text")
    assert data["body"] == '"\\u00e9-é-+AGE-"\ufffd'
    assert data["notes"][0] == f"body: the charset {charset!r} is not supported, read as UTF-8"


async def test_no_name_that_a_server_sends_reaches_the_codec_registry() -> None:
    """`charset=punycode` and others of Python's slow codecs."""
    before = len(encodings._cache)  # type: ignore[attr-defined]
    names = [f"made-up-{number}" for number in range(50)]
    assert [find_codec(name) for name in names] == [None] * 50
    for name in names:
        transport = answering(b"a", content_type=f"text/plain; charset={name}")
        await run(HttpTool(transport), url="http://a.test/", response_type="text")
    assert len(encodings._cache) == before  # type: ignore[attr-defined]


def test_charsets_on_the_list_are_read() -> None:
    names = {"Windows-1252": "€", "SHIFT_JIS": "表", "gb2312": "中", "koi8-r": "Ж", "UTF-16LE": "é", "csISOLatin1": "é"}
    for name, text in names.items():
        codec = find_codec(name)
        assert codec is not None
        assert decoded(text.encode(codec), codec) == text
    dangerous = {"punycode", "idna", "utf_7", "unicode_escape", "raw_unicode_escape", "mbcs", "undefined", "rot_13"}
    spellings = [*encodings.aliases.aliases, *encodings.aliases.aliases.values(), *dangerous]
    assert not {spelling for spelling in spellings if find_codec(spelling) in dangerous}


@pytest.mark.parametrize(
    "codec", ["cp1252", "cp932", "euc-jp", "iso-2022-jp", "gb18030", "utf-16", "utf-32-be", "big5"]
)
def test_text_read_by_pieces_is_the_text_read_at_once(codec: str) -> None:
    good = ("日本ab" if codec not in ("cp1252",) else "é€ab") * 150_000
    data = good.encode(find_codec(codec) or codec)
    assert decoded(data, codec) == good
    broken = data[:500_001] + b"\x81\x81\xff\xff\xff" + data[500_001:]
    assert decoded(broken, codec, "replace") == broken.decode(codec, "replace")
    with pytest.raises(UnicodeDecodeError) as at_once:
        broken.decode(codec)
    with pytest.raises(UnicodeDecodeError) as by_pieces:
        decoded(broken, codec)
    assert by_pieces.value.start == at_once.value.start


# ── large bodies ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("size", "off_loop"), [(10, False), (LARGE, True)])
async def test_large_answer_is_decoded_off_the_loop(size: int, off_loop: bool) -> None:
    """An answer whose size alone blocks the loop."""
    threads = Threads()
    transport = answering(b"a" * size, content_type="text/plain; charset=windows-1252")
    data = await run(HttpTool(transport), url="http://a.test/")
    assert len(data["body"]) == size
    assert bool(threads.given) == off_loop


@pytest.mark.parametrize(("size", "off_loop"), [(10, False), (LARGE, True)])
@pytest.mark.parametrize("as_stream", [False, True])
async def test_large_mcp_answer_is_parsed_off_the_loop(as_stream: bool, size: int, off_loop: bool) -> None:
    """The same from an MCP server."""
    threads = Threads()

    def answer(request: httpx.Request) -> httpx.Response:
        if b'"initialize"' in request.content:
            return httpx.Response(200, json={"jsonrpc": "2.0", "id": 1, "result": {}})
        if b"notifications/" in request.content:
            return httpx.Response(202)
        text = b'{"jsonrpc":"2.0","id":2,"result":{"tools":[],"pad":"%s"}}' % (b"a" * size)
        if as_stream:
            return httpx.Response(
                200, headers={"content-type": "text/event-stream"}, content=b"data: " + text + b"\n\n"
            )
        return httpx.Response(200, headers={"content-type": "application/json"}, content=text)

    tool = McpTool(httpx.MockTransport(answer))
    await run(tool, endpoint="http://a.test/mcp", method="tools/list")
    assert bool(threads.given) == off_loop  # what initialize answers is small


@pytest.mark.parametrize(
    ("body", "off_loop"),
    [(b"a", False), (b"a" * LARGE, True), (gzip.compress(b"a" * LARGE), True)],
    ids=["small", "large", "unpacks to much"],
)
async def test_artifact_that_is_large_or_unpacks_to_much_is_read_off_the_loop(body: bytes, off_loop: bool) -> None:
    """An artifact that unpacks to many times its size."""
    threads = Threads()
    data = await run(ArtifactTool(answering(body)), uri="http://a.test/x")
    assert data["sha256"] == hashlib.sha256(body).hexdigest()
    assert bool(threads.given) == off_loop


@pytest.fixture(params=[("gzip", 31), ("deflate", -15)], ids=lambda param: param[0])
def packed(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    """32 MiB, and how they are packed."""
    compressor = zlib.compressobj(wbits=request.param[1])
    return request.param[0], compressor.compress(b"a" * (32 << 20)) + compressor.flush()


async def test_packed_answer_is_unpacked_in_steps_between_which_others_run(packed: tuple[str, bytes]) -> None:
    """A compressed answer that takes long to unpack."""
    coding, contents = packed

    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def at_once() -> AsyncIterator[bytes]:
        yield contents

    response = httpx.Response(200, headers={"content-encoding": coding}, content=at_once())
    task = asyncio.ensure_future(other())
    content = await http_answer.read(response, 64 << 20)
    task.cancel()
    assert content.size == 32 << 20
    assert turns >= 32
