"""A server, or what a statement makes of itself, chooses the bytes that a worker reads: others go on meanwhile."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.house import house, noops
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.process.room import room
from tools.databases import Postgres, postgres_server

from .neighbours import answering, neighbourhood

TINY_CHUNKS = b"1\r\n \r\n" * (1 << 16)


def answer(body: bytes, *headers: bytes) -> bytes:
    lines = (b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers)
    return b"\r\n".join((*lines, b"", b"")) + body


def dense(values: int) -> bytes:
    return b"[" + b"[]," * values + b"[]]"


def http(url: str, **config: Any) -> RawCommand:
    return RawCommand("http", {"url": url, "timeout": 8, **config})


def ever() -> list[bytes]:
    return [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[TINY_CHUNKS] * (1 << 12)]


def some_now(given: Iterable[str], *later: str) -> list[Any]:
    """The names in `given`; those that begin with one of `later` take seconds of CPU, and are for `make sweeps`."""
    return [pytest.param(name, marks=pytest.mark.sweep) if name.startswith(later) else name for name in given]


LARGEST = {"max_response_bytes": 256 << 20}
HTTP: dict[str, tuple[Callable[[], list[bytes]], int, dict[str, Any], int]] = {
    "Content-Type of 95,000 semicolons": (
        lambda: [answer(b"{}", b"Content-Type: a/b" + b";" * 95_000 + b"charset=x")],
        1,
        {},
        200,
    ),
    "chunks of one byte": (ever, 8, {}, 200),
    "8 of 60 MB of `[],`": (lambda: [answer(dense(20_000_000))], 8, LARGEST, 700),
    "8 of 5 MB of `[],`": (lambda: [answer(dense(1_800_000))], 8, {}, 700),
    "8 of 60 MB of text": (lambda: [answer(b"\xc3\xa9" * 30_000_000)], 8, LARGEST, 700),
    "60 MB of escapes": (lambda: [answer(b'["' + b"\\n" * 30_000_000 + b'"]')], 1, LARGEST, 500),
    "name and value pairs": (
        lambda: [answer(b"{" + b",".join(b'"%d":1' % n for n in range(600_000)) + b"}")],
        4,
        LARGEST,
        700,
    ),
    "20,000 headers of one name": (lambda: [answer(b"{}", *[b"a: b"] * 20_000)], 1, {}, 200),
}
"""What a server sends, made by the test that has it sent; how often it is asked; settings of the command; MB."""


@pytest.mark.parametrize("name", some_now(HTTP, "8 of 60 MB", "60 MB of escapes", "name and value pairs"))
async def test_answer_of_a_server_holds_up_no_command_of_others(name: str, tmp_path: Path) -> None:
    """Answers that take the loop or a gigabyte of memory to read."""
    made, times, config, memory_mb = HTTP[name]
    parts = made()

    def send(connection: Any) -> None:
        for part in parts:
            connection.sendall(part)

    with answering(send) as url, answering(lambda connection: connection.sendall(answer(b"{}"))) as harmless:
        async with neighbourhood(tmp_path, http(harmless)) as street:
            toll = await street.run_beside([http(url, **config) for _ in range(times)], name)
    toll.require(memory_mb=memory_mb)
    if name == "chunks of one byte":
        assert all("beside its content" in (error or "") for error in toll.errors)


QUERIES: dict[str, tuple[str, int]] = {
    "record of quotes": ("""select row(repeat('"', 4000000))""", 300),
    "record of commas": ("select row(repeat(',', 30000000))", 500),
    "jsonb of 11.7 MB of `[],`": ("select ('[' || repeat('[],', 3900000) || '[]]')::jsonb", 500),
    "json that just fits": ("select ('[' || repeat('[],', 900000) || '[]]')::json", 700),
    "arrays": ("select array_fill(1, array[40000]) from generate_series(1, 100)", 700),
    "array of 8 MB": ("select array_fill(1, array[4000000])", 300),
    "many nulls": ("select " + ",".join(["null"] * 1000) + " from generate_series(1, 3000)", 700),
}


WITH_PARAMETERS = ("record of quotes", "json that just fits", "many nulls")
"""These are asked for with a parameter as well: their values come by another way of the protocol."""


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres_server() as running:
        yield running


@pytest.mark.parametrize("name", some_now(QUERIES, "record of quotes", "arrays", "many nulls", "jsonb"))
async def test_values_of_postgres_hold_up_no_command_of_others(name: str, database: Postgres, tmp_path: Path) -> None:
    """Values that take the loop or gigabytes to take apart."""
    query, memory_mb = QUERIES[name]
    with_parameter = query.replace(" from ", ", $1::int from ", 1) if " from " in query else f"{query}, $1::int"
    first, text, parameters = (
        RawCommand("postgres", {**one, "connection_string": database.uri})
        for one in (
            {"query": "select 1"},
            {"query": query, "timeout": 60},
            {"query": with_parameter, "params": [1], "timeout": 60},
        )
    )
    async with neighbourhood(tmp_path, first) as street:
        attacks = {name: text} | ({f"{name} with parameters": parameters} if name in WITH_PARAMETERS else {})
        for which, attack in attacks.items():
            toll = await street.run_beside([attack], which)
            toll.require(memory_mb=memory_mb)


async def test_room_of_a_command_is_given_back_with_it_and_waits_for_no_collector() -> None:
    """(no attack) What a large answer was charged."""
    with answering(lambda connection: connection.sendall(answer(b"[" + b"[]," * 100_000 + b"1]"))) as url:
        async with house() as home:
            await home.ran(http(url))
            gc.collect()
            gc.disable()
            try:
                await home.ran(http(url), *noops(2))
                assert room.taken == 0
            finally:
                gc.enable()
