from __future__ import annotations

import asyncio
import json

import pytest

from noetl_worker import acknowledge
from noetl_worker.dead_letter import DeadLetters, Letter, pack, reason_label, settle_delivery
from noetl_worker.errors import DocumentError, JetStreamError
from noetl_worker.models import NotFound, Outcome, Refused, Settlement
from noetl_worker.observability.metrics import DEAD_LETTER_REASONS, DEAD_LETTERS


class Delivery:
    data = b"{broken"
    subject = "noetl.commands"
    num_delivered = 3
    stream_sequence = 41

    def __init__(self, *, gone: bool = False) -> None:
        self.answers: list[str] = []
        self.headers = {"traceparent": "00-1"}
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


# ── the letter ──


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{broken",
        "ö\ufffd".encode(),
        b"\xff\x00\xfe",
        b"\xf0\x9f\x98",
        b"x" * 65_536,
        b"x" * 65_537,
        b"\x00" * 300_000,
    ],
    ids=["empty", "text", "utf-8", "binary", "cut character", "longest text", "longer", "long binary"],
)
def test_message_comes_out_of_its_letter_byte_for_byte(data: bytes) -> None:
    body = pack(data, {"a": "b"}, reason="r", subject="s", stream_sequence=7, num_delivered=2, step="start")
    letter = Letter.parse(body)
    assert letter.data == data
    assert (letter.size, letter.subject, letter.stream_sequence, letter.num_delivered) == (len(data), "s", 7, 2)
    assert (dict(letter.headers), dict(letter.detail)) == ({"a": "b"}, {"step": "start"})


def test_letter_fits_into_the_default_max_payload_of_nats() -> None:
    for data in (b"\x00" * 65_536, b"\xff" * (512 * 1024), b"\x01" * 1024 * 1024):
        assert len(pack(data, None, reason="r", subject="s")) < 1024 * 1024


def test_message_too_long_to_be_kept_whole_is_not_taken_for_whole() -> None:
    letter = Letter.parse(pack(b"x" * 600_000, None, reason="r", subject="s"))
    assert letter.data is None
    assert letter.excerpt == "x" * 4096


@pytest.mark.parametrize(("text", "size", "is_whole"), [("{broken", 7, True), ("cut", 9, False), ("\ufffd", 3, False)])
def test_letter_of_an_earlier_version_is_whole_only_if_nothing_can_be_lost(
    text: str, size: int, is_whole: bool
) -> None:
    kept = {"reason": "r", "subject": "s", "notification": text, "notification_bytes": size}
    assert (Letter.parse(json.dumps(kept).encode()).data is not None) is is_whole


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"reason": 1, "subject": "s"}'])
def test_message_of_another_kind_is_no_letter(body: bytes) -> None:
    with pytest.raises(DocumentError):
        Letter.parse(body)


@pytest.mark.parametrize(
    ("outcome", "label"),
    [
        (acknowledge.poison("not a notification: json_syntax"), "not_a_notification"),
        (acknowledge.poison("the control plane refuses the outcome: 422"), "outcome_refused"),
        (acknowledge.after_claim(NotFound("404 gone"), 6, max_not_found=6), "unknown_command"),
        (acknowledge.after_claim(Refused("410 over"), 1, max_not_found=6), "claim_refused"),
    ],
)
def test_dead_letters_are_counted_by_reason(outcome: Outcome, label: str) -> None:
    assert label in DEAD_LETTER_REASONS
    assert reason_label(outcome.reason) == label
    before = DEAD_LETTERS.labels(label)._value.get()
    settle(outcome, Delivery())
    assert DEAD_LETTERS.labels(label)._value.get() == before + 1
