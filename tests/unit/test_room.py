"""The room of a worker for what servers send."""

from __future__ import annotations

import asyncio
import gc

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.process.room import MOST_OF_ONE, Room
from noetl_worker.tools.contract import Stop

MEBIBYTE = 1 << 20


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_finds_no_room_waits_until_another_has_gone() -> None:
    room, first, second = Room(), Stop(), Stop()
    await room.take(200 * MEBIBYTE, first)
    waiting = asyncio.ensure_future(room.take(100 * MEBIBYTE, second))
    await turns()
    assert not waiting.done()
    del first
    gc.collect()
    await waiting
    assert (room.taken, room.share(second)) == (100 * MEBIBYTE, 100 * MEBIBYTE)


async def test_two_that_have_half_of_what_they_need_both_end() -> None:
    room, first, second = Room(), Stop(), Stop()
    await room.take(120 * MEBIBYTE, first)
    await room.take(120 * MEBIBYTE, second)
    waiting = asyncio.ensure_future(room.take(120 * MEBIBYTE, second))
    await room.take(120 * MEBIBYTE, first)
    await turns()
    assert not waiting.done()
    room.release(240 * MEBIBYTE, first)
    await waiting


async def test_ordinary_answer_does_not_wait_for_large_ones() -> None:
    room, first, second = Room(), Stop(), Stop()
    await room.take(400 * MEBIBYTE, first)
    await room.take(MEBIBYTE, second)


async def test_who_gives_up_waiting_has_nothing() -> None:
    room, first, second = Room(), Stop(), Stop()
    await room.take(400 * MEBIBYTE, first)
    waiting = asyncio.ensure_future(room.take(2 * MEBIBYTE, second))
    await turns()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert room.share(second) == 0


async def test_command_that_would_have_more_than_a_worker_can_hold_is_told() -> None:
    room, owner = Room(), Stop()
    with pytest.raises(ToolError, match=r"takes 513 MiB of memory, over 512 for one command: ask for less") as error:
        await room.take(MOST_OF_ONE + MEBIBYTE, owner)
    assert error.value.kind == "resource"
