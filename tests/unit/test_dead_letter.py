from __future__ import annotations

import json

import pytest

from noetl_worker.errors import DocumentError, JetStreamError
from noetl_worker.models import ClaimRefused, NotFound, RetryLater
from noetl_worker.models.disposition import Answer, Disposition, DispositionKind
from noetl_worker.observability import metrics
from noetl_worker.pipeline.delivery import acknowledge
from noetl_worker.pipeline.delivery.dead_letter import DeadLetter, DeadLetters, pack
from noetl_worker.pipeline.delivery.settle import settle_delivery


class Delivery:
    data = b"{broken"
    subject = "noetl.commands"
    num_delivered = 3
    stream_sequence = 41
    message_id = "noetl_commands-41-1700000000000000000"

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


async def settle(
    disposition: Disposition, delivery: Delivery, *, full: bool = False
) -> tuple[str | None, list[dict[str, object]]]:
    kept: list[dict[str, object]] = []

    async def publish(subject: str, data: bytes, message_id: str) -> None:
        assert message_id == delivery.message_id
        if full:
            raise JetStreamError("stream is full")
        kept.append(json.loads(data))

    dead_letters = DeadLetters(publish, "w-1")
    return await settle_delivery(dead_letters, delivery, disposition), kept


async def test_poison_is_kept_with_its_reason_before_it_is_terminated() -> None:
    delivery = Delivery()
    ended, kept = await settle(acknowledge.not_a_notification("json_syntax"), delivery)
    assert delivery.answers == ["term not a notification: json_syntax"]
    assert ended == "term:not a notification"
    assert kept[0]["reason"] == "not a notification: json_syntax"
    assert (kept[0]["notification"], kept[0]["num_delivered"], kept[0]["stream_sequence"]) == ("{broken", 3, 41)


async def test_poison_that_cannot_be_kept_is_not_terminated_but_returned() -> None:
    delivery = Delivery()
    await settle(acknowledge.not_a_notification("x"), delivery, full=True)
    assert delivery.answers == ["nak 30"]


async def test_answer_that_does_not_get_through_is_not_counted_as_settled() -> None:
    assert await settle(acknowledge.REPORTED, Delivery(gone=True)) == (None, [])


@pytest.mark.parametrize(
    ("disposition", "said"),
    [
        (acknowledge.REPORTED, "ack"),
        (Disposition(DispositionKind.BUSY, delay_s=1.5), "nak 1.5"),
        (acknowledge.returned(), "nak 0"),
    ],
)
async def test_each_outcome_has_its_one_answer(disposition: Disposition, said: str) -> None:
    delivery = Delivery()
    await settle(disposition, delivery)
    assert delivery.answers == [said]


# ── the dead letter ──


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
def test_message_comes_out_of_its_dead_letter_byte_for_byte(data: bytes) -> None:
    body = pack(data, {"a": "b"}, kind="k", reason="r", subject="s", stream_sequence=7, num_delivered=2, step="start")
    dead_letter = DeadLetter.parse(body)
    assert (dead_letter.data, dead_letter.size) == (data, len(data))
    assert (dead_letter.subject, dead_letter.stream_sequence, dead_letter.num_delivered) == ("s", 7, 2)
    assert (dict(dead_letter.headers), dict(dead_letter.detail)) == ({"a": "b"}, {"step": "start"})


def test_dead_letter_fits_into_the_default_max_payload_of_nats() -> None:
    for data in (b"\x00" * 65_536, b"\xff" * (512 * 1024), b"\x01" * 1024 * 1024):
        assert len(pack(data, None, kind="k", reason="r", subject="s")) < 1024 * 1024


def test_message_too_long_to_be_kept_whole_is_not_taken_for_whole() -> None:
    dead_letter = DeadLetter.parse(pack(b"x" * 600_000, None, kind="k", reason="r", subject="s"))
    assert dead_letter.data is None
    assert dead_letter.excerpt == "x" * 4096


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"kind": "k", "reason": 1, "subject": "s"}'])
def test_message_of_another_kind_is_no_dead_letter(body: bytes) -> None:
    with pytest.raises(DocumentError):
        DeadLetter.parse(body)


@pytest.mark.parametrize(
    ("disposition", "label"),
    [
        (acknowledge.not_a_notification("json_syntax"), "not_a_notification"),
        (acknowledge.outcome_refused("422"), "outcome_refused"),
        (acknowledge.answer_to_claim(NotFound("404 gone"), 6), "unknown_command"),
        (acknowledge.answer_to_claim(ClaimRefused("unknown command: says a proxy"), 1), "claim_refused"),
    ],
)
async def test_dead_letters_are_counted_by_reason_whatever_their_text(disposition: Disposition, label: str) -> None:
    before = metrics.DEAD_LETTERS.labels(label).value
    _, kept = await settle(disposition, Delivery())
    assert metrics.DEAD_LETTERS.labels(label).value == before + 1
    assert kept[0]["kind"] == label


# ── the tables over how a notification ended ──


def test_dead_letter_of_server_errors_says_so_first() -> None:
    old_s = acknowledge.OLD_AFTER_S + 1
    broken = RetryLater("claim: 500", is_server_error=True)
    disposition = acknowledge.answer_to_claim(broken, 6, message_age_s=old_s)
    assert (disposition.kind, disposition.answer) == (DispositionKind.SERVER_ERRORS, Answer.TERM)
    assert disposition.reason == "server error at every try: claim: 500"
