from __future__ import annotations

import asyncio
import json

import pytest

from noetl_worker import acknowledge
from noetl_worker.dead_letter import DeadLetters, settle_delivery
from noetl_worker.errors import JetStreamError
from noetl_worker.models import Outcome, Settlement


class Delivery:
    data = b"{broken"
    subject = "noetl.commands"
    num_delivered = 3
    stream_sequence = 41

    def __init__(self, *, gone: bool = False) -> None:
        self.answers: list[str] = []
        self.gone = gone

    async def _answer(self, text: str) -> None:
        if self.gone:
            raise JetStreamError("not connected")
        self.answers.append(text)

    async def ack(self) -> None:
        await self._answer("ack")

    async def nak(self, delay_s: float) -> None:
        await self._answer(f"nak {delay_s:g}")

    async def term(self, reason: str) -> None:
        await self._answer(f"term {reason}")


def settle(outcome: Outcome, delivery: Delivery, *, full: bool = False) -> tuple[str | None, list[dict[str, object]]]:
    kept: list[dict[str, object]] = []

    async def publish(subject: str, data: bytes) -> None:
        if full:
            raise JetStreamError("stream is full")
        kept.append(json.loads(data))

    letters = DeadLetters(publish, "noetl.dead_letters", "w-1")
    return asyncio.run(settle_delivery(letters, delivery, outcome)), kept


def test_poison_is_kept_with_its_reason_before_it_is_terminated() -> None:
    delivery = Delivery()
    ended, kept = settle(acknowledge.poison("not a notification: json_syntax"), delivery)
    assert delivery.answers == ["term not a notification: json_syntax"]
    assert ended == "term:not a notification"
    assert kept[0]["reason"] == "not a notification: json_syntax"
    assert (kept[0]["notification"], kept[0]["num_delivered"], kept[0]["stream_sequence"]) == ("{broken", 3, 41)


def test_poison_that_cannot_be_kept_is_not_terminated_but_given_back() -> None:
    delivery = Delivery()
    settle(acknowledge.poison("x"), delivery, full=True)
    assert delivery.answers == ["nak 30"]


def test_answer_that_does_not_get_through_is_not_counted_as_settled() -> None:
    assert settle(acknowledge.reported(), Delivery(gone=True)) == (None, [])


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (acknowledge.reported(), "ack"),
        (Outcome(Settlement.NAK, "retry_later", delay_s=1.5), "nak 1.5"),
        (acknowledge.given_back(), "nak 0"),
    ],
)
def test_each_outcome_has_its_one_answer(outcome: Outcome, said: str) -> None:
    delivery = Delivery()
    settle(outcome, delivery)
    assert delivery.answers == [said]
