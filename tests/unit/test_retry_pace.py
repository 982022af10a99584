"""Commands that fail by themselves share a few tries a second; a plane that is ill is not taken for one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

import virtual_time
from noetl_worker.models import HeldByOther, NotFound, RetryLater
from noetl_worker.pipeline.delivery import acknowledge
from noetl_worker.remote.plane.retry_pace import FIRST_DELAYED_DELIVERY, HEALTHY_S, MAX_WAIT_S, RATE_PER_S, RetryPace

BROKEN = RetryLater("500", is_server_error=True)
anyio_backend = virtual_time.anyio_backend


def after_a_claim() -> RetryPace:
    """Of a plane that has just given a command."""
    pace = RetryPace()
    pace.given_at = time.monotonic()
    return pace


async def test_commands_that_fail_while_others_are_given_share_five_tries_a_second() -> None:
    pace = after_a_claim()
    waits = [pace.least_wait_s(BROKEN, FIRST_DELAYED_DELIVERY) for _ in range(1000)]
    assert waits[0] == pytest.approx(1 / RATE_PER_S)
    for second in range(199):
        due = sum(1 for wait_s in waits if second < wait_s <= second + 1)
        assert due <= RATE_PER_S + 1, f"{due} come again within second {second}"
    assert max(waits) == pytest.approx(200.0)


async def test_wait_is_bounded() -> None:
    pace = after_a_claim()
    waits = [pace.least_wait_s(BROKEN, FIRST_DELAYED_DELIVERY) for _ in range(5000)]
    assert max(waits) <= MAX_WAIT_S
    beyond = Counter(int(wait_s) for wait_s in waits[int(MAX_WAIT_S * RATE_PER_S) :])
    assert max(beyond.values()) < 3 * sum(beyond.values()) / len(beyond), "those that are too many come spread"


async def test_plane_that_gives_nothing_to_anybody_is_asked_again_as_before() -> None:
    pace = after_a_claim()
    await asyncio.sleep(HEALTHY_S)
    assert pace.least_wait_s(BROKEN, 20) == 0.0


@pytest.mark.parametrize("delivery", range(1, FIRST_DELAYED_DELIVERY))
async def test_first_tries_follow_the_usual_back_off(delivery: int) -> None:
    pace = after_a_claim()
    assert pace.least_wait_s(BROKEN, delivery) == 0.0


@pytest.mark.parametrize("claim", [HeldByOther("held", None), NotFound("404"), RetryLater("busy")])
async def test_other_outcomes_have_waits_of_their_own(claim: HeldByOther | NotFound | RetryLater) -> None:
    pace = after_a_claim()
    assert pace.least_wait_s(claim, 20) == 0.0


async def test_pause_between_failures_is_not_saved_up() -> None:
    pace = RetryPace()
    for _ in range(2):
        pace.given_at = time.monotonic()
        assert pace.least_wait_s(BROKEN, FIRST_DELAYED_DELIVERY) == pytest.approx(1 / RATE_PER_S)
        await asyncio.sleep(60.0)


def test_message_waits_for_the_later_of_its_turn_and_its_back_off() -> None:
    soon = acknowledge.answer_to_claim(BROKEN, 10, at_least_s=0.2)
    late = acknowledge.answer_to_claim(BROKEN, 10, at_least_s=200.0)
    assert soon.delay_s is not None
    assert 0.2 <= soon.delay_s <= acknowledge.MAX_DELAY_S
    assert late.delay_s == 200.0
