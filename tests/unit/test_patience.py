"""What is waited out, and from when uncertain answers are counted."""

from __future__ import annotations

import asyncio

import pytest

import virtual_time
from noetl_worker.errors import ServerRefused
from noetl_worker.plane.client import refusal
from noetl_worker.plane.patience import until_it_passes
from noetl_worker.transport.transport import Response

anyio_backend = virtual_time.anyio_backend


async def answered(statuses: list[int], *, is_page: bool = False) -> str:
    """The end of a call that is answered these statuses, each after ten seconds, and then succeeds."""
    left = list(statuses)

    async def call() -> str:
        if left:
            await asyncio.sleep(10)
            raise ServerRefused("refused", status=left.pop(0), body="", is_page=is_page)
        return "done"

    return await until_it_passes("a call", call)


async def test_time_in_which_a_plane_was_busy_is_no_time_of_uncertainty() -> None:
    assert await answered([503] * 8 + [500]) == "done"


async def test_server_errors_are_a_refusal_after_six_of_them_and_half_a_minute() -> None:
    with pytest.raises(ServerRefused):
        await answered([500] * 7)


@pytest.mark.parametrize("status", [401, 408, 429, 503])
async def test_what_passes_is_waited_out_however_often_it_comes(status: int) -> None:
    assert await answered([status] * 50) == "done"


async def test_what_will_never_be_accepted_is_raised_at_once() -> None:
    with pytest.raises(ServerRefused):
        await answered([422])


async def test_page_of_somebody_between_counts_as_a_server_error() -> None:
    assert await answered([404] * 5, is_page=True) == "done"
    with pytest.raises(ServerRefused):
        await answered([404] * 7, is_page=True)


@pytest.mark.parametrize(
    ("status", "body", "is_page"),
    [
        (404, b"<html><body>404 page not found</body></html>", True),
        (404, b"404 page not found", True),
        (404, b'{"detail": "Batch request not found"}', False),
        (404, b"", False),  # a route that the Rust plane does not have
        (422, b"Failed to deserialize the JSON body into the target type", False),
    ],
)
def test_only_a_404_that_is_no_answer_of_a_plane_is_a_page(status: int, body: bytes, is_page: bool) -> None:
    assert refusal("GET /x", Response(status, {}, body)).is_page is is_page
