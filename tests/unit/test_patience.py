"""What is waited out, and from when uncertain answers are counted."""

from __future__ import annotations

import asyncio

import pytest

import virtual_time
from noetl_worker.errors import ServerRefused
from noetl_worker.remote.plane.client import refusal
from noetl_worker.remote.plane.patience import retry_while_passing
from noetl_worker.remote.transport.transport import Response

anyio_backend = virtual_time.anyio_backend


async def answered(statuses: list[int], *, is_page: bool = False) -> str:
    """The end of a call that is answered these statuses, each after ten seconds, and then succeeds."""
    left = list(statuses)

    async def call() -> str:
        if left:
            await asyncio.sleep(10)
            raise ServerRefused("refused", status=left.pop(0), body="", is_page=is_page)
        return "done"

    return await retry_while_passing("a call", call)


@pytest.mark.parametrize(
    ("statuses", "is_page"),
    [*(([status] * 50, False) for status in (401, 408, 429, 503)), ([503] * 8 + [500], False), ([404] * 5, True)],
    ids=["401", "408", "429", "503", "busy first, then uncertain", "a page, not too often"],
)
async def test_what_passes_is_waited_out_however_often_it_comes(statuses: list[int], is_page: bool) -> None:
    assert await answered(statuses, is_page=is_page) == "done"


@pytest.mark.parametrize(
    ("statuses", "is_page"),
    [([500] * 7, False), ([404] * 7, True), ([422], False)],
    ids=["more than six server errors in half a minute", "as many pages", "what will never be accepted"],
)
async def test_what_does_not_pass_is_a_refusal(statuses: list[int], is_page: bool) -> None:
    with pytest.raises(ServerRefused):
        await answered(statuses, is_page=is_page)


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
