"""What is waited out, and what a doubt is counted from."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from noetl_worker.errors import ServerRefused
from noetl_worker.plane import patience
from noetl_worker.plane.patience import until_it_passes

Answered = Callable[[list[int]], Coroutine[Any, Any, str]]


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Answered:
    """The end of a call that is answered these statuses, ten seconds apart, and then succeeds."""
    now = [0.0]

    async def sleep(_: float) -> None:
        now[0] += 10.0

    monkeypatch.setattr(patience.asyncio, "sleep", sleep)
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])

    async def end(statuses: list[int]) -> str:
        left = list(statuses)

        async def call() -> str:
            if left:
                raise ServerRefused("refused", status=left.pop(0), body="")
            return "done"

        return await until_it_passes("a call", call)

    return end


async def test_time_in_which_a_plane_was_busy_is_no_time_of_doubt(answered: Answered) -> None:
    assert await answered([503] * 8 + [500]) == "done"


async def test_server_errors_are_a_refusal_after_six_of_them_and_half_a_minute(answered: Answered) -> None:
    with pytest.raises(ServerRefused):
        await answered([500] * 7)


@pytest.mark.parametrize("status", [401, 408, 429, 503])
async def test_what_passes_is_waited_out_however_often_it_comes(answered: Answered, status: int) -> None:
    assert await answered([status] * 50) == "done"


async def test_what_will_never_be_accepted_is_raised_at_once(answered: Answered) -> None:
    with pytest.raises(ServerRefused):
        await answered([422])
