"""Every row of the claims in docs/delivery.md, on the recorded answers of the real planes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import MaybeProcessed, NotSent
from noetl_worker.models import (
    AlreadyFinished,
    AuthRefusedClaim,
    ClaimAnswer,
    Claimed,
    ClaimRefused,
    Dialect,
    HeldByOther,
    HeldByThisWorker,
    NotFound,
    RetryLater,
)
from noetl_worker.models.disposition import Answer
from noetl_worker.models.marks import Marks
from noetl_worker.pipeline.claim.claim import claim_command, read_claim
from noetl_worker.pipeline.delivery import acknowledge
from noetl_worker.pipeline.delivery.in_flight import Seen
from noetl_worker.remote.jetstream.comparison import MAX_AGE_S
from noetl_worker.remote.transport.transport import Response
from unit.planes import ENVELOPE, answer, plane

PYTHON_409 = {
    "claim-409-cache-fast-path": (
        {"detail": {"code": "active_claim", "message": "m", "worker_id": "b", "claim_policy": "cache_fast_path"}},
        HeldByOther,
    ),
    "claim-409-being-claimed": (
        {"detail": {"code": "active_claim", "message": "Command is being claimed"}},
        RetryLater,
    ),
    "claim-409-worker-status-running": (
        {"detail": {"code": "active_claim", "worker_status": "running"}},
        HeldByThisWorker,
    ),
    "claim-409-already-terminal": (
        {"detail": {"code": "already_terminal", "message": "Command status: COMPLETED"}},
        AlreadyFinished,
    ),
    "execution-cancelled": ({"detail": {"code": "execution_cancelled"}}, AlreadyFinished),
    "an unknown code": ({"detail": {"code": "something_new"}}, RetryLater),
    "no detail": ({"oops": 1}, RetryLater),
    "not JSON": (b"<html>conflict</html>", RetryLater),
}


@pytest.mark.parametrize(("body", "kind"), PYTHON_409.values(), ids=PYTHON_409)
def test_python_409s_are_told_apart_by_code(body: Any, kind: type) -> None:
    assert isinstance(read_claim(answer(409, body, retry_after="2"), Dialect.PYTHON), kind)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Command already claimed by hand-1", HeldByOther),
        ("Command already reached terminal state", AlreadyFinished),
        ("Execution has been cancelled", AlreadyFinished),
        ("Command is being claimed by another worker", RetryLater),
    ],
)
def test_rust_409s_are_told_apart_by_text(text: str, kind: type) -> None:
    assert isinstance(read_claim(answer(409, {"error": text, "status": 409}), Dialect.RUST), kind)


@pytest.mark.parametrize(
    "said",
    [answer(200, b"<html>log in</html>"), answer(200, b"[1]"), answer(200, b""), answer(308, b"")],
    ids=lambda said: f"{said.status} {said.body!r}",
)
def test_answer_of_somebody_between_is_waited_for_and_a_dead_letter_once_it_is_old(said: Response) -> None:
    """A page to log in at, or a redirect to it, would empty the queue."""
    claim = read_claim(said, Dialect.PYTHON)
    assert acknowledge.answer_to_claim(claim, 1).answer is Answer.NAK
    late = acknowledge.answer_to_claim(claim, 50, message_age_s=49 * 60)
    assert (late.answer, late.dead_letter) == (Answer.TERM, True)


@pytest.mark.parametrize("body", [{"status": "ok"}, {"execution_id": 1, "node_name": "s"}], ids=str)
def test_200_that_gives_no_command_is_refused_and_becomes_a_dead_letter(body: Any) -> None:
    claim = read_claim(answer(200, body), Dialect.PYTHON)
    assert isinstance(claim, ClaimRefused)
    disposition = acknowledge.answer_to_claim(claim, 1)
    assert (disposition.answer, disposition.dead_letter) == (Answer.TERM, True)


@pytest.mark.parametrize("error", [NotSent("refused"), MaybeProcessed("reset")])
async def test_connection_trouble_is_retried_later_and_not_raised(error: Exception) -> None:
    at, _ = plane(lambda *_: error)
    claim = await claim_command(at, ENVELOPE.event_id, "w")
    assert isinstance(claim, RetryLater)


async def test_claim_goes_to_the_event_id_with_the_worker_id_alone() -> None:
    whole = {"execution_id": 1, "node_name": "s", "action": "noop", "context": {}, "meta": {}}
    at, transport = plane(lambda *_: answer(200, whole))
    claim = await claim_command(at, ENVELOPE.event_id, "w-1")
    no_marks = Marks(templates=False, references=False, secrets=False)
    assert claim == Claimed(whole, no_marks, len(json.dumps(whole)))
    method, path, body, _ = transport.sent[0]
    assert (method, path, body) == ("POST", f"/api/commands/{ENVELOPE.event_id}/claim", {"worker_id": "w-1"})


# ── the answer to JetStream ──


@pytest.mark.parametrize(
    ("claim", "answer", "dead"),
    [
        (AlreadyFinished("x"), Answer.ACK, False),
        (HeldByOther("x", 2.0), Answer.NAK, False),
        (HeldByThisWorker("x", 2.0), Answer.NAK, False),
        (RetryLater("x"), Answer.NAK, False),
        (AuthRefusedClaim("x"), Answer.NAK, False),
        (NotFound("x"), Answer.NAK, False),
        (ClaimRefused("x"), Answer.TERM, True),
    ],
)
def test_first_delivery_is_answered_by_the_table(claim: ClaimAnswer, answer: Answer, dead: bool) -> None:
    disposition = acknowledge.answer_to_claim(claim, 1)
    assert (disposition.answer, disposition.dead_letter) == (answer, dead)
    if answer is Answer.NAK:
        assert disposition.delay_s > 0


def test_unknown_command_is_set_aside_at_the_sixth_delivery_and_not_before() -> None:
    before = acknowledge.answer_to_claim(NotFound("x"), 5)
    after = acknowledge.answer_to_claim(NotFound("x"), 6)
    assert before.answer is Answer.NAK
    assert (after.answer, after.dead_letter) == (Answer.TERM, True)


@pytest.mark.parametrize(
    ("body", "dialect"),
    [
        ({"detail": "command not found: 7"}, Dialect.PYTHON),
        ({"error": "command not found: 7", "status": 404}, Dialect.RUST),
    ],
)
def test_404_of_a_plane_says_that_nobody_knows_the_command(body: Any, dialect: Dialect) -> None:
    assert isinstance(read_claim(answer(404, body), dialect), NotFound)


@pytest.mark.parametrize("body", [b"<html>404</html>", {"detail": "x"}, b""], ids=str)
def test_404_of_a_proxy_says_nothing_of_the_command(body: Any) -> None:
    assert isinstance(read_claim(answer(404, body), Dialect.PYTHON), RetryLater)


async def test_lost_claim_answer_is_asked_again_with_the_same_id() -> None:
    whole = {"execution_id": 1, "node_name": "s", "action": "noop"}
    answers: list[Any] = [answer(200, whole), MaybeProcessed("reset"), MaybeProcessed("reset")]
    at, transport = plane(lambda *_: answers.pop())
    assert isinstance(await claim_command(at, ENVELOPE.event_id, "w"), Claimed)
    assert [body for *_, body, _ in transport.sent] == [{"worker_id": "w"}] * 3


def test_server_errors_are_set_aside_before_the_stream_forgets_the_message() -> None:
    claim = RetryLater("500", is_server_error=True)
    limit_s = acknowledge.OLD_AFTER_S
    assert limit_s == 48 * 60 < MAX_AGE_S == 3600
    young = acknowledge.answer_to_claim(claim, 900, message_age_s=limit_s - 1)
    old = acknowledge.answer_to_claim(claim, 6, message_age_s=limit_s + 1)
    first = acknowledge.answer_to_claim(claim, 1, message_age_s=limit_s + 1)
    assert first.answer is Answer.NAK, "all workers were down: one error is not 'at every try'"
    refused = acknowledge.answer_to_claim(RetryLater("refused"), 2, message_age_s=limit_s + 1)
    assert (young.answer, old.answer, refused.answer) == (Answer.NAK, Answer.TERM, Answer.NAK)
    assert old.dead_letter


def test_retry_after_is_the_floor_of_the_delay() -> None:
    for _ in range(50):
        assert acknowledge.answer_to_claim(RetryLater("x", 3.0), 1).delay_s >= 3.0
        assert acknowledge.answer_to_claim(HeldByOther("x", 2.0), 1).delay_s >= 2.0


def test_delays_grow_with_the_deliveries_up_to_thirty_seconds() -> None:
    assert acknowledge.MAX_DELAY_S == 30.0
    for delivery, most_s in enumerate([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0], start=1):
        drawn = [acknowledge.answer_to_claim(RetryLater("x"), delivery).delay_s for _ in range(300)]
        assert most_s * 0.9 < max(drawn) <= most_s


def test_duplicates_are_answered_without_a_claim() -> None:
    assert acknowledge.duplicate(Seen.REDELIVERED, 2) is None
    finished = acknowledge.duplicate(Seen.FINISHED, 2)
    again = acknowledge.duplicate(Seen.PUBLISHED_AGAIN, 1)
    soon = acknowledge.duplicate(Seen.BEING_REPORTED, 2)
    assert soon is not None
    assert 0 < soon.delay_s <= 1.0, "its outcome is reported in milliseconds"
    assert finished is not None
    assert finished.answer is Answer.ACK
    assert again is not None
    assert again.answer is Answer.NAK


def test_interrupted_command_waits_for_the_rest_of_a_lease_of_the_python_plane() -> None:
    assert 90 < acknowledge.interrupted(Dialect.PYTHON, 20.0, 120.0).delay_s < 104
    assert acknowledge.interrupted(Dialect.PYTHON, 500.0, 120.0).delay_s < 4
    assert acknowledge.interrupted(Dialect.RUST, 1.0, 120.0).delay_s < 4


SAMPLES = Path(__file__, "../../compat/samples").resolve()


def recorded_claims() -> list[tuple[str, Response, Dialect]]:
    found = []
    for name, dialect in (("python-control-plane-cases", Dialect.PYTHON), ("rust-control-plane-cases", Dialect.RUST)):
        for line in (SAMPLES / f"{name}.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record.get("path", "").endswith("/claim") and record.get("method") == "POST":
                body = record["resp"]
                packed = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                found.append((record["case"], Response(record["status"], record["hdr"], packed), dialect))
    return found


@pytest.mark.parametrize(
    ("case", "recorded", "dialect"), recorded_claims(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_recorded_claim_answers_read_as_their_case_names_say(case: str, recorded: Response, dialect: Dialect) -> None:
    claim = read_claim(recorded, dialect)
    expected = {200: Claimed, 404: NotFound, 405: ClaimRefused, 422: ClaimRefused, 503: RetryLater, 500: RetryLater}
    if recorded.status == 409:
        assert isinstance(claim, (AlreadyFinished, HeldByOther, HeldByThisWorker, RetryLater))
        if "terminal" in case:
            assert isinstance(claim, AlreadyFinished)
    else:
        assert isinstance(claim, expected[recorded.status])
