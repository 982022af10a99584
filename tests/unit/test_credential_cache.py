"""The cache of secrets: who sees what, for how long, and how often the plane is asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import virtual_time
from noetl_worker.text.secrets.credential_cache import MAX_ENTRIES, CredentialCache, Fetched, Key

anyio_backend = virtual_time.anyio_backend
KEY: Key = ("credential", "http://plane", "pg", 7)


class Source:
    """Counts its askers; answers `values` by turns, the last one for ever."""

    def __init__(self, *values: Any, lifetime_s: float | None = None, takes_s: float = 0) -> None:
        self.values = list(values)
        self.lifetime_s, self.takes_s = lifetime_s, takes_s
        self.asked = 0

    async def __call__(self) -> Fetched:
        self.asked += 1
        await asyncio.sleep(self.takes_s)
        value = self.values.pop(0) if len(self.values) > 1 else self.values[0]
        if isinstance(value, Exception):
            raise value
        return Fetched(value, self.lifetime_s)


async def test_entry_is_used_until_its_time_is_over() -> None:
    cache, source = CredentialCache(), Source({"n": 1}, {"n": 2})
    assert await cache.get(KEY, source) == {"n": 1}
    await asyncio.sleep(59.5)
    assert await cache.get(KEY, source) == {"n": 1}
    await asyncio.sleep(0.5)
    assert await cache.get(KEY, source) == {"n": 2}
    assert source.asked == 2


@pytest.mark.parametrize(("lifetime_s", "asked"), [(None, 1), (3600.0, 1), (5.0, 2), (0.0, 2), (-3.0, 2)])
async def test_own_expiry_shortens_the_time_and_never_lengthens_it(lifetime_s: float | None, asked: int) -> None:
    cache, source = CredentialCache(), Source({"n": 1}, lifetime_s=lifetime_s)
    await cache.get(KEY, source)
    await asyncio.sleep(10)
    await cache.get(KEY, source)
    assert source.asked == asked
    await asyncio.sleep(51)
    await cache.get(KEY, source)
    assert source.asked == asked + 1


async def test_parallel_commands_ask_once() -> None:
    cache, source = CredentialCache(), Source({"n": 1})
    found = await asyncio.gather(*(cache.get(KEY, source) for _ in range(50)))
    assert found == [{"n": 1}] * 50
    assert source.asked == 1


async def test_cancelled_asker_does_not_take_the_answer_from_the_others() -> None:
    cache, source = CredentialCache(), Source({"n": 1}, takes_s=1)
    first = asyncio.ensure_future(cache.get(KEY, source))
    second = asyncio.ensure_future(cache.get(KEY, source))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == {"n": 1}
    assert first.cancelled()
    assert source.asked == 1


async def test_failure_reaches_all_who_wait_and_is_not_kept() -> None:
    cache, source = CredentialCache(), Source(LookupError("no"), {"n": 1})
    results = await asyncio.gather(*(cache.get(KEY, source) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [LookupError] * 3
    assert await cache.get(KEY, source) == {"n": 1}
    assert source.asked == 2


async def test_what_one_command_changes_the_next_one_does_not_see() -> None:
    cache, source = CredentialCache(), Source({"nested": {"password": "x"}})
    first: Any = await cache.get(KEY, source)
    first["nested"]["password"] = "changed"
    assert await cache.get(KEY, source) == {"nested": {"password": "x"}}


async def test_least_recently_used_entry_goes_first() -> None:
    cache, source = CredentialCache(), Source({"n": 1})
    keys: list[Key] = [("credential", "u", str(number), 1) for number in range(MAX_ENTRIES + 1)]
    for key in keys[:-1]:
        await cache.get(key, source)
    await cache.get(keys[0], source)
    await cache.get(keys[-1], source)
    assert len(cache) == MAX_ENTRIES
    asked = source.asked
    await cache.get(keys[0], source)
    assert source.asked == asked
    await cache.get(keys[1], source)
    assert source.asked == asked + 1


async def test_forgotten_entry_is_asked_for_again_and_an_answer_under_way_is_not_kept() -> None:
    cache, source, slow = CredentialCache(), Source({"n": 1}, {"n": 2}, {"n": 3}), Source({"old": True}, takes_s=1)
    await cache.get(KEY, source)
    cache.forget([KEY])
    assert await cache.get(KEY, source) == {"n": 2}
    cache.clear()
    waiting = asyncio.ensure_future(cache.get(KEY, slow))
    await asyncio.sleep(0)
    cache.forget([KEY])
    assert await waiting == {"old": True}
    assert await cache.get(KEY, source) == {"n": 3}
