"""DuckDB's threads at the end of a command: what they use is free once they have ended, and told is what happened."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.tools.duckdb import duckdb
from noetl_worker.tools.duckdb import session as duckdb_session
from noetl_worker.tools.duckdb.duckdb import run_opened
from noetl_worker.tools.duckdb.session import Opened, Opening, Stepwise, Threads, Work

pytest.importorskip("duckdb")


class Closing:
    """`Opened.close`: counted in `closed`; it waits for `go_on`, and fails with `failure`."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.closed = 0
        self.failure: ToolError | None = None


@pytest.fixture
def closing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Closing]:
    watched = Closing()
    close = Opened.close

    def close_watched(ready: Opened) -> None:
        watched.begun.set()
        watched.go_on.wait(20)
        close(ready)
        watched.closed += 1
        if watched.failure is not None:
            raise watched.failure

    monkeypatch.setattr(Opened, "close", close_watched)
    yield watched
    watched.go_on.set()


async def cancelled(call: asyncio.Future[None]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_steps_cancelled_before_the_thread_has_begun_to_close_are_closed(closing: Closing) -> None:
    """Of a file that is read, our lock would stay for as long as the worker."""
    busy = threading.Event()
    opened: list[Stepwise] = []

    async def steps() -> None:
        async with Stepwise(Opening("transfer")) as ready:
            opened.append(ready)
            ready._thread.submit(busy.wait, 20)

    call = asyncio.ensure_future(steps())
    while not opened or opened[0]._opened is not None:
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.sleep(0)
    busy.set()
    await cancelled(call)
    assert closing.closed == 1


async def test_steps_cancelled_while_they_are_opened_are_closed_before_the_cancellation_goes_on(
    closing: Closing, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    open_really = duckdb_session.opened

    def open_slowly(*arguments: object) -> Opened:
        begun.set()
        go_on.wait(20)
        return open_really(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(duckdb_session, "opened", open_slowly)
    closing.go_on.clear()

    async def steps() -> None:
        async with Stepwise(Opening("transfer")):
            raise AssertionError("it was cancelled before")

    call = asyncio.ensure_future(steps())
    await asyncio.to_thread(begun.wait, 20)
    call.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.to_thread(closing.begun.wait, 20)
    await asyncio.wait({call}, timeout=0.1)
    assert not call.done()
    closing.go_on.set()
    await cancelled(call)
    assert closing.closed == 1


async def test_failure_of_the_closing_does_not_stand_for_a_cancellation(closing: Closing) -> None:
    closing.failure = ToolError("another process opened it", kind="db_lock", retryable=True)
    started = asyncio.Event()

    async def steps() -> None:
        async with Stepwise(Opening("transfer")):
            started.set()
            await asyncio.Event().wait()

    call = asyncio.ensure_future(steps())
    await started.wait()
    call.cancel()
    await cancelled(call)
    assert closing.closed == 1


async def test_failure_of_the_closing_is_told_when_nothing_else_failed(closing: Closing) -> None:
    closing.failure = ToolError("another process opened it", kind="db_lock", retryable=True)

    with pytest.raises(ToolError, match="another process"):
        async with Stepwise(Opening("transfer")) as ready:
            await ready.do(lambda connection: connection.execute("select 1"))


@pytest.mark.parametrize("timeout_s", [0.01, None])
async def test_cancellation_waits_for_a_thread_that_is_being_stopped_already(timeout_s: float | None) -> None:
    """The next command may open the file once this one's turn is over."""
    begun, go_on = threading.Event(), threading.Event()

    def body(*_: object) -> None:
        begun.set()
        go_on.wait(20)

    threads, work = Threads(), Work(Opening("duckdb"), body)
    call = asyncio.ensure_future(threads.run(work, timeout_s))
    await asyncio.to_thread(begun.wait, 20)
    if timeout_s is None:
        call.cancel()
    while not work.is_stopped:
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait({call}, timeout=0.1)
    assert not call.done()
    go_on.set()
    await cancelled(call)
    threads.close()


async def test_cancellation_that_meets_the_turn_of_a_file_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio.wait_for loses it, up to Python 3.11: the statements ran to their end."""
    ran: list[bool] = []

    @asynccontextmanager
    async def then_cancelled(*_: object, **__: object) -> AsyncIterator[None]:
        asyncio.get_running_loop().call_soon(lambda: calls[0].cancel())
        yield

    def body(_duckdb: object, _connection: object, work: Work[dict[str, Any]]) -> dict[str, Any]:
        ran.append(work._stopped.wait(5))
        return {}

    monkeypatch.setattr(duckdb, "turn", then_cancelled)
    calls: list[asyncio.Future[Any]] = []
    threads, opening = Threads(), Opening("duckdb", str(tmp_path / "a.duckdb"))
    calls.append(asyncio.ensure_future(run_opened(threads, opening, body, 60.0)))
    await cancelled(calls[0])
    threads.close()
    assert False not in ran
