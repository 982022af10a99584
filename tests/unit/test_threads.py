"""A pool of threads: one owner has at most a quarter of it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from unittest import mock

import pytest

from noetl_worker.observability.probes import Health, make_pages
from noetl_worker.process import event_loop
from noetl_worker.process.threads import OWNER, POOLS, WORK, WORK_THREADS, Threads
from patience import until

MOST, SHARE = 8, 2


class Holds:
    """Calls that stay in their thread until they are let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun: list[str] = []

    def call(self, name: str) -> str:
        self.begun.append(name)
        self.go.wait()
        return name

    def submit(self, threads: Threads, owner: str | None, count: int) -> list[Future[str]]:
        return [threads.submit_for(owner, partial(self.call, owner or "-")) for _ in range(count)]


@contextmanager
def pool(name: str = "of a test") -> Iterator[tuple[Threads, Holds]]:
    with mock.patch.dict(POOLS):
        threads, holds = Threads(name, MOST), Holds()
        try:
            yield threads, holds
        finally:
            holds.go.set()
            threads.shutdown()


async def begun(holds: Holds, count: int) -> None:
    await until(lambda: len(holds.begun) == count, f"{count} calls have begun", every_s=0.001)


async def test_one_owner_has_a_quarter_and_others_go_past_what_it_waits_for() -> None:
    with pool() as (threads, holds):
        first = holds.submit(threads, "a", 12)
        second = holds.submit(threads, "b", 1)
        await begun(holds, SHARE + 1)
        assert sorted(holds.begun) == ["a", "a", "b"]
        holds.go.set()
        assert [one.result() for one in (*first, *second)] == ["a"] * 12 + ["b"]


async def test_worker_itself_may_have_every_thread() -> None:
    with pool() as (threads, holds):
        holds.submit(threads, None, MOST + 1)
        await begun(holds, MOST)


async def test_call_that_nobody_waits_for_any_more_counts_until_it_has_ended() -> None:
    with pool() as (threads, holds):
        left = [asyncio.wrap_future(one) for one in holds.submit(threads, "a", SHARE)]
        await begun(holds, SHARE)
        for one in left:
            one.cancel()
        [waits] = holds.submit(threads, "a", 1)
        assert holds.begun == ["a"] * SHARE
        holds.go.set()
        assert waits.result() == "a"


async def test_call_that_is_given_up_before_its_turn_never_runs() -> None:
    with pool() as (threads, holds):
        *_, late = holds.submit(threads, "a", SHARE + 1)
        assert threads.waiting_s() > 0
        late.cancel()
        assert threads.waiting_s() == 0
        holds.go.set()
        threads.submit_for("a", lambda: None).result()
        assert holds.begun == ["a"] * SHARE


async def test_pool_stands_where_more_than_one_owner_has_filled_it() -> None:
    """Not where an owner waits for its own calls."""
    with pool() as (threads, holds):
        holds.submit(threads, "a", MOST)
        await begun(holds, SHARE)
        assert (threads.waiting_s() > 0, threads.stuck_s()) == (True, 0)
        for owner in "bcd":
            holds.submit(threads, owner, SHARE)
        await begun(holds, MOST)
        assert threads.stuck_s() == 0
        holds.submit(threads, "e", 1)
        assert threads.stuck_s() > 0


async def test_call_without_a_thread_never_runs_and_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> Future[None]:
        raise RuntimeError("can't start new thread")

    with pool() as (threads, holds):
        with monkeypatch.context() as patched:
            patched.setattr(ThreadPoolExecutor, "submit", refused)
            for _ in range(SHARE):
                with pytest.raises(RuntimeError, match="can't start new thread"):
                    threads.submit_for("a", partial(holds.call, "refused"))
        holds.submit(threads, "a", SHARE)
        await begun(holds, SHARE)
        assert holds.begun == ["a"] * SHARE


@pytest.mark.parametrize(("name", "code"), [(WORK, 503), ("tool_names", 200)])
async def test_livez_fails_for_a_standing_pool_of_our_own_work_alone(name: str, code: int) -> None:
    """It names the other one: a new process would have the same resolver."""
    with pool(name) as (threads, holds):
        holds.submit(threads, None, MOST + 1)
        await begun(holds, MOST)
        answered, said = await make_pages(Health(ready=True, stands_after_s=0.0))["/livez"]()
        assert isinstance(said, dict)
        assert (answered, list(said["pools_waiting_s"])) == (code, [name])


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_threads_of_a_worker_are_shared_out_on_both_loops(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    else:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    holds = Holds()

    async def work() -> None:
        OWNER.set("a")
        mine = [asyncio.ensure_future(asyncio.to_thread(holds.call, "a")) for _ in range(WORK_THREADS)]
        await begun(holds, WORK_THREADS // 4)
        OWNER.set("b")
        other = asyncio.ensure_future(asyncio.to_thread(holds.call, "b"))
        await begun(holds, WORK_THREADS // 4 + 1)
        holds.go.set()
        await asyncio.gather(*mine, other)

    with mock.patch.dict(POOLS):
        event_loop.run(work())
