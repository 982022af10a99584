"""DuckDB's threads at the end of a command: what they use is free once they have ended, and told is what happened."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.tools.duckdb.duckdb import run_opened
from noetl_worker.tools.duckdb.files import turn
from noetl_worker.tools.duckdb.session import Opening, Stepwise
from patience import PATIENCE_S

pytest.importorskip("duckdb")


class Watched:
    """DuckDB, whose opening and closing wait until they may go on."""

    def __init__(self) -> None:
        self.opening, self.may_open = threading.Event(), threading.Event()
        self.closing, self.may_close = threading.Event(), threading.Event()
        self.let_go()
        self.closed = 0
        self.failure: ToolError | None = None
        """What a closing ends with."""
        self.after_closing: Callable[[], None] = lambda: None

    def let_go(self) -> None:
        self.may_open.set()
        self.may_close.set()


class Connection:
    """A connection of DuckDB that is closed as `watched` says."""

    def __init__(self, connection: Any, watched: Watched) -> None:
        self._connection, self._watched = connection, watched

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def close(self) -> None:
        self._watched.closing.set()
        self._watched.may_close.wait(PATIENCE_S)
        self._connection.close()
        self._watched.closed += 1
        self._watched.after_closing()
        if self._watched.failure is not None:
            raise self._watched.failure


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    import duckdb

    watched, connect = Watched(), duckdb.connect

    def connected(*arguments: Any) -> Any:
        watched.opening.set()
        watched.may_open.wait(PATIENCE_S)
        return Connection(connect(*arguments), watched)

    monkeypatch.setattr(duckdb, "connect", connected)
    yield watched
    watched.let_go()


FAILURE = ToolError("another process opened it", kind="db_lock", retryable=True)


async def arrived(event: threading.Event) -> None:
    await asyncio.to_thread(event.wait, PATIENCE_S)


async def opened_for_a_step() -> None:
    async with Stepwise(Opening("transfer")) as ready:
        await ready.do(lambda connection: connection.execute("select 1"))


async def cancelled(call: asyncio.Future[Any]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_steps_cancelled_before_the_thread_has_begun_to_close_are_closed(watched: Watched) -> None:
    """Of a file that is read, our lock would stay for as long as the worker."""
    busy, at_its_end, before = threading.Event(), asyncio.Event(), []

    async def steps() -> None:
        async with Stepwise(Opening("transfer")) as ready:
            before.append(asyncio.ensure_future(ready.do(lambda _: busy.wait(PATIENCE_S))))
            await asyncio.sleep(0)
            at_its_end.set()

    call = asyncio.ensure_future(steps())
    await at_its_end.wait()
    call.cancel()
    await asyncio.sleep(0)
    assert watched.closed == 0
    busy.set()
    await cancelled(call)
    assert await before[0]
    assert watched.closed == 1


async def test_steps_cancelled_while_they_are_opened_are_closed_before_the_cancellation_goes_on(
    watched: Watched,
) -> None:
    watched.may_open.clear()
    watched.may_close.clear()

    async def steps() -> None:
        async with Stepwise(Opening("transfer")):
            raise AssertionError("it was cancelled before")

    call = asyncio.ensure_future(steps())
    await arrived(watched.opening)
    call.cancel()
    await asyncio.sleep(0)
    watched.may_open.set()
    await arrived(watched.closing)
    await asyncio.wait({call}, timeout=0.1)
    assert not call.done()
    watched.may_close.set()
    await cancelled(call)
    assert watched.closed == 1


async def test_steps_cancelled_while_they_are_closed_end_as_cancelled(watched: Watched) -> None:
    watched.may_close.clear()
    call = asyncio.ensure_future(opened_for_a_step())
    await arrived(watched.closing)
    call.cancel()
    await asyncio.wait({call}, timeout=0.1)
    watched.may_close.set()
    await cancelled(call)


async def test_an_interrupt_that_meets_the_end_does_nothing(watched: Watched) -> None:
    """DuckDB answers one on a closed connection with an exception, which then stood for the result."""
    async with Stepwise(Opening("duckdb")) as steps:
        watched.after_closing = steps.interrupt
    assert watched.closed == 1


async def test_failure_of_the_closing_does_not_stand_for_a_cancellation(watched: Watched) -> None:
    watched.failure = FAILURE
    started = asyncio.Event()

    async def steps() -> None:
        async with Stepwise(Opening("transfer")):
            started.set()
            await asyncio.Event().wait()

    call = asyncio.ensure_future(steps())
    await started.wait()
    call.cancel()
    await cancelled(call)
    assert watched.closed == 1


async def test_failure_of_the_closing_is_told_when_nothing_else_failed(watched: Watched) -> None:
    watched.failure = FAILURE
    with pytest.raises(ToolError, match="another process"):
        await opened_for_a_step()


@pytest.mark.parametrize("timeout_s", [0.1, None])
async def test_cancellation_waits_for_a_thread_that_is_being_stopped_already(
    watched: Watched, file: str, timeout_s: float | None
) -> None:
    """The next command may open the file once this one's turn is over."""
    watched.may_open.clear()

    async def next_one() -> None:
        async with turn(file, read_only=False):
            pass

    ours = turn(file, read_only=False)
    call = asyncio.ensure_future(run_opened(ours, Opening("duckdb", file), lambda *_: {}, timeout_s))
    await arrived(watched.opening)
    if timeout_s is None:
        call.cancel()
    await asyncio.wait({call}, timeout=0.2)  # a timeout is over by then
    assert not call.done()
    call.cancel()
    following = asyncio.ensure_future(next_one())
    await asyncio.wait({call, following}, timeout=0.1)
    assert not call.done()
    assert not following.done()
    watched.may_open.set()
    await cancelled(call)
    await following


@pytest.mark.parametrize("steps", range(6))
async def test_cancellation_that_meets_the_turn_of_a_file_is_not_lost(file: str, steps: int) -> None:
    """asyncio.wait_for loses it around the turn alone, up to Python 3.11: the statements ran to their end."""

    def body(_: Stepwise, connection: Any) -> dict[str, Any]:
        connection.execute("select count(*) from range(100000000000) a where sin(a.range) > 0.5")
        return {}

    async with turn(file, read_only=False):
        ours = turn(file, read_only=False)
        call = asyncio.ensure_future(run_opened(ours, Opening("duckdb", file), body, 60.0))
        await asyncio.sleep(0)
    for _ in range(steps):
        await asyncio.sleep(0)
    call.cancel()
    await cancelled(call)
