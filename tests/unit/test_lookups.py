"""Look-ups of the names that the settings have, and what is known of them."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest

import loops
from noetl_worker.process.lookups import OwnLookups
from patience import until


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were asked for. `none...` has no address, `two...` a first one where nobody is."""
    names: list[str] = []

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        names.append(host)
        if host.startswith("none"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        addresses = ["192.0.2.1", "127.0.0.1"] if host.startswith("two") else ["127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


@pytest.fixture
def own() -> OwnLookups:
    return OwnLookups("own_names", 8)


pytestmark = pytest.mark.parametrize("anyio_backend", loops.BOTH)


async def refused(address: str) -> None:
    raise ConnectionRefusedError(address)


async def test_addresses_are_believed_for_thirty_seconds(
    own: OwnLookups, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = time.monotonic()
    assert await own.addresses("a.test", 80) == await own.addresses("a.test", 443) == ["127.0.0.1"]
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 29)
    await own.addresses("a.test", 80)
    assert asked == ["a.test"]
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 31)
    await own.addresses("a.test", 80)
    assert asked == ["a.test"] * 2


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_address_is_not_looked_up(own: OwnLookups, asked: list[str], address: str) -> None:
    assert await own.addresses(address, 80) == [address]
    assert asked == []


async def test_failed_look_up_is_not_believed(own: OwnLookups, asked: list[str]) -> None:
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await own.addresses("none.test", 80)
    assert asked == ["none.test"] * 2


async def test_next_address_is_tried_and_a_name_without_one_that_answers_looked_up_again(
    own: OwnLookups, asked: list[str]
) -> None:
    tried: list[str] = []

    async def second(address: str) -> str:
        tried.append(address)
        if len(tried) == 1:
            raise ConnectionRefusedError
        return address

    assert await own.connected("two.test", 80, second) == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError, match=r"192\.0\.2\.1"):
        await own.connected("two.test", 80, refused)
    await own.connected("two.test", 80, second)
    assert asked == ["two.test"] * 2


async def test_connection_that_does_not_come_about_in_time_is_looked_up_again(
    own: OwnLookups, asked: list[str]
) -> None:
    connecting = asyncio.ensure_future(own.connected("a.test", 80, lambda _: asyncio.sleep(3600)))
    await until(lambda: bool(asked), "looked up")
    connecting.cancel()
    await asyncio.wait({connecting})
    await own.addresses("a.test", 80)
    assert asked == ["a.test"] * 2


async def test_one_silent_name_leaves_threads_to_the_others(own: OwnLookups, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each attempt to connect gives up and asks again."""
    answer, held = threading.Event(), []

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        if host == "silent.test":
            held.append(host)
            answer.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    waiting = [asyncio.ensure_future(own.addresses("silent.test", 80)) for _ in range(12)]
    await until(lambda: len(held) == 2, "its threads are taken")
    assert await own.addresses("other.test", 80) == ["127.0.0.1"]
    assert len(held) == 2
    answer.set()
    assert await asyncio.gather(*waiting) == [["127.0.0.1"]] * 12
    assert len(held) == 2  # the others found what these two have
