"""What happens when the planes do not listen: what is tried again, refused for good, or rescued."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import virtual_time
from noetl_worker.errors import MaybeProcessed, NotSent, ServerRefused
from noetl_worker.models import AlreadyFinished, Dialect
from noetl_worker.pipeline.report.emitter import LATE_S
from noetl_worker.remote.plane import patience
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.remote.plane.send_status import SendStatus
from noetl_worker.remote.transport.transport import Response
from unit.planes import After, Hurried, Lost, answer, batch_status, command, emitter
from unit.reports import OK, accept, names, report_of, tell
from unit.restarted_plane import LOOP

anyio_backend = virtual_time.anyio_backend


@pytest.mark.parametrize(
    "trouble",
    [NotSent("refused"), MaybeProcessed("reset"), *(answer(status, {}) for status in (408, 425, 429, 502, 503, 504))],
    ids=lambda trouble: str(getattr(trouble, "status", trouble)),
)
async def test_passing_trouble_is_retried_with_the_same_key_until_accepted(trouble: Response | Exception) -> None:
    troubles = [trouble] * 9
    transport = await tell(OK, lambda *a: troubles.pop() if troubles else accept(*a))
    assert len(transport.sent) == 10
    assert len({headers["idempotency-key"] for *_, headers in transport.sent}) == 1


async def test_lost_answer_on_the_rust_plane_is_retried_and_a_duplicate_key_is_success() -> None:
    singles: list[int] = []

    def script(method: str, path: str, body: Any) -> Response | Exception:
        if path != "/api/events":
            return answer(200, {"event_ids": []})
        singles.append(body["event_id"])
        if len(singles) == 1:
            return MaybeProcessed("reset")
        return answer(500, {"error": "duplicate key value violates unique constraint"})

    await tell(OK, script, dialect=Dialect.RUST)
    assert len(singles) == 2
    assert singles[0] == singles[1]


@pytest.mark.parametrize(("owner", "tries"), [("ours", 1), ("another", 2), ("nobody says", 2)])
async def test_duplicate_key_on_a_first_try_gets_a_new_id_where_it_is_not_our_own_event(owner: str, tries: int) -> None:
    """Ours: a proxy has sent the request twice, and the second was answered first (found by the simulator)."""
    singles: list[int] = []

    def script(method: str, path: str, body: Any) -> Response:
        if path == "/api/events/batch":
            return answer(200, {"event_ids": []})
        if method == "GET":  # in the form of the record clock-behind-execution
            context = {"command_id": command(Dialect.RUST).command_id if owner == "ours" else "1:start:2"}
            event = {"event_id": singles[0], "event_type": "command.completed", "result": {"context": context}}
            return answer(404) if owner == "nobody says" else answer(200, {"status": "COMPLETED", "events": [event]})
        singles.append(body["event_id"])
        return answer(200, {"event_id": 1}) if len(singles) == 2 else answer(500, {"error": "duplicate key value"})

    await tell(OK, script, dialect=Dialect.RUST)
    assert len(singles) == tries
    assert singles == sorted(set(singles))


PAGES = (
    answer(404, b"<html>404 page not found"),
    answer(405, {"detail": "no"}),
    answer(301),
    answer(200, b"<html>we will be back"),
    answer(413, b"<html>too large"),
)
LASTING_PAGES = PAGES[0], PAGES[2], PAGES[3]


MANY = patience.UNCERTAIN_TRIES + 2
BROKEN = answer(500, {"detail": "internal"})
OUTLASTED: dict[str, Sequence[Response | Exception | After]] = {
    **{f"page {page.status}": [page] * MANY for page in PAGES},
    **{f"lasting page {page.status}": [After(patience.UNCERTAIN_S, page)] * MANY for page in LASTING_PAGES},
    "a plane that is broken for a while": [BROKEN] * MANY,
    "an outage between two uncertain answers": [
        After(1.0, BROKEN),
        *[After(30.0, NotSent("refused"))] * 10,
        *[After(1.0, BROKEN)] * (patience.UNCERTAIN_TRIES + 1),
    ],
    "a busy plane that was broken before": [
        *[BROKEN] * patience.UNCERTAIN_TRIES,
        *[After(patience.UNCERTAIN_S, answer(503, {}))] * 20,  # it has been uncertain for long enough by then
    ],
}
"""A proxy's page, however long it stands, came from before a plane that is being replaced; also as a 200. After half a
minute of it the result became a failure, and that a dead letter. Time in which a plane does not answer, or is busy, is
no time of uncertainty."""


@pytest.mark.parametrize("troubles", OUTLASTED.values(), ids=OUTLASTED)
async def test_trouble_that_is_no_refusal_of_the_set_costs_no_result(troubles: Sequence[Any]) -> None:
    left = list(troubles)
    transport = await tell(OK, lambda *a: left.pop(0) if left else accept(*a))
    assert left == []
    assert {names(body)[-1] for body in transport.bodies("/api/events/batch")} == {"command.completed"}


@pytest.mark.parametrize("status", [400, 409, 413, 422])
async def test_set_that_can_never_be_accepted_is_refused_at_once(status: int) -> None:
    answers = [answer(status, {"detail": "no"})]
    with pytest.raises(ServerRefused) as caught:
        await tell(OK, lambda *_: answers.pop())
    assert (caught.value.status, answers) == (status, [])


async def test_uncertain_500_is_a_refusal_after_so_many_tries_and_so_long() -> None:
    async def tries(each_s: float) -> list[float]:
        """When it is sent to a plane that takes so long to answer."""
        sent: list[float] = []

        def script(*_: Any) -> After:
            sent.append(time.monotonic())
            return After(each_s, answer(500, {"detail": "payload.result includes unsupported keys: data"}))

        with pytest.raises(ServerRefused):
            await tell(OK, script)
        return sent

    many = await tries(2.0)
    assert len(many) > patience.UNCERTAIN_TRIES
    assert many[-1] - many[0] == pytest.approx(patience.UNCERTAIN_S, abs=2.0)
    assert len(await tries(patience.UNCERTAIN_S)) == patience.UNCERTAIN_TRIES


async def test_wait_that_a_plane_asks_for_is_bounded() -> None:
    busy, ours = [answer(503, {}, retry_after="3600")], emitter()
    transport = await tell(OK, lambda *a: busy.pop() if busy else accept(*a), teller=ours)
    assert len(transport.sent) == 2
    assert isinstance(ours.stopping, Hurried)
    assert 1 < max(ours.stopping.waits) < 60


class _Batches:
    """A Python plane that stores batches and never processes them; its 503 can get lost on the way."""

    def __init__(
        self, *, answers_get_lost: bool, state: str = "failed", processes_after: int = 1, code: str = "ack_timeout"
    ) -> None:
        self.answers_get_lost, self.state, self.left, self.code = answers_get_lost, state, processes_after, code
        self.keys: list[str] = []

    def __call__(self, method: str, path: str, body: Any) -> Response | Exception:
        if method == "GET":
            return batch_status(*self.state.split())
        key = json.dumps(body["events"])
        if key in self.keys:
            return answer(202, {"status": "accepted", "request_id": "7", "duplicate": True})
        self.keys.append(key)
        if self.left == 0:
            return answer(202, {"status": "accepted", "request_id": "8", "duplicate": False})
        self.left -= 1
        if self.answers_get_lost:
            return MaybeProcessed("POST", "connection reset")
        return answer(503, {"detail": {"code": self.code, "request_id": "7"}})


@pytest.mark.parametrize("answers_get_lost", [False, True])
async def test_batch_that_was_stored_and_never_processed_is_rescued(answers_get_lost: bool) -> None:
    """Also when the answer that said so was lost, and the same key is a duplicate by now."""
    batches = _Batches(answers_get_lost=answers_get_lost)
    sent = (await tell(OK, batches)).bodies("/api/events/batch")
    assert names(sent[-1]) == ["step.exit"]
    assert sent[-1]["events"][0]["actionable"] is True
    assert [names(body)[-1] for body in sent[:-1]] == ["command.completed"] * (len(sent) - 1)


@pytest.mark.parametrize(
    ("data", "context"), [({"rows": [{"i": 1}], "n": 1}, {"rows": [{"i": 1}], "n": 1}), ([1, 2], {"data": [1, 2]})]
)
async def test_rescue_has_the_whole_result(data: Any, context: Any) -> None:
    """It is what later steps see of the command then (protocol/batches.md#rescue); elsewhere it has the plain
    values alone."""
    report = await report_of(data)
    sent = (await tell(report, _Batches(answers_get_lost=False))).bodies("/api/events/batch")
    assert sent[-1]["events"][0]["payload"]["result"]["context"] == context
    done, left = (next(one for one in sent[0]["events"] if one["name"] == name) for name in ("call.done", "step.exit"))
    assert done["payload"]["response"] == data
    assert "rows" not in left["payload"]["result"].get("context", {})


@pytest.mark.parametrize("answers_get_lost", [False, True])
@pytest.mark.parametrize(
    "changes", [{"loop": LOOP}, {"step": "start:task_sequence"}], ids=["item of a loop", "list of tasks"]
)
async def test_batch_that_a_rescue_does_not_help_is_not_rescued_and_that_is_said(
    changes: Any, answers_get_lost: bool
) -> None:
    """The `step.exit` of an item alone made the plane issue items again (20 became 30), and that of a list is passed
    over by the engine (protocol/batches.md#rescue)."""
    batches = _Batches(answers_get_lost=answers_get_lost)
    with capture_logs() as lines:
        sent = (await tell(OK, batches, **changes)).bodies("/api/events/batch")
    assert {names(body)[-1] for body in sent} == {"command.completed"}
    (said,) = [line for line in lines if line["event"].startswith("batch_")]
    assert said["event"] == "batch_not_rescued"
    assert "issue items again that have run" in said["advice"]


@pytest.mark.parametrize("state", ["completed", "processing", "accepted", "failed processing_error"])
async def test_duplicate_that_was_processed_is_not_rescued(state: str) -> None:
    sent = (await tell(OK, _Batches(answers_get_lost=True, state=state))).bodies("/api/events/batch")
    assert [names(body)[-1] for body in sent] == ["command.completed"] * 2


@pytest.mark.parametrize("code", ["ack_timeout", "enqueue_error"])
async def test_503_that_says_that_a_batch_came_into_no_queue_is_enough_for_a_rescue(code: str) -> None:
    """A plane whose database is down cannot note that: the batch stays `accepted`, and the same key is a duplicate."""
    batches, sent = _Batches(answers_get_lost=False, state="accepted", code=code), []
    away = [answer(503, {"detail": {"code": "db_unavailable"}}), answer(503, {"detail": {"code": "pool_saturated"}})]

    def script(method: str, path: str, body: Any) -> Response | Exception:
        sent.append("asked" if method == "GET" else names(body)[-1])
        return away.pop() if batches.left == 0 and away else batches(method, path, body)

    await tell(OK, script)
    assert sent == ["command.completed", "step.exit", "step.exit", "step.exit"]


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (503, {"code": "ack_timeout"}),
        (503, {"code": "queue_unavailable", "request_id": "7"}),
        (503, "busy"),
        (500, "503: {'code': 'db_unavailable', 'message': 'retry shortly'}"),
    ],
    ids=["no batch named", "another code", "no object", "a 500 that wraps one"],
)
def test_any_other_503_passes(status: int, detail: Any) -> None:
    assert RULES[Dialect.PYTHON].judge(answer(status, {"detail": detail})) is SendStatus.PASSING


async def test_duplicate_is_not_accepted_on_the_word_of_a_proxy() -> None:
    """Its page says nothing of the batch, which was never processed (found by the simulator)."""
    page = Response(404, {"content-type": "text/html"}, b"<html><body>404 page not found</body></html>")
    batches, pages = _Batches(answers_get_lost=True), [page] * 3

    def script(method: str, path: str, body: Any) -> Response | Exception:
        return pages.pop() if method == "GET" and pages else batches(method, path, body)

    sent = (await tell(OK, script)).bodies("/api/events/batch")
    assert [names(body)[-1] for body in sent] == ["command.completed", "command.completed", "step.exit"]
    assert pages == []


async def test_rescue_is_sent_however_late_and_whatever_the_claim_says(tmp_path: Path) -> None:
    """The plane calls the command finished because of our own rows: nobody else can end it (found by the simulator)."""
    busy, batches = [answer(503, {"detail": {"code": "pool_saturated"}})] * 3, _Batches(answers_get_lost=False)

    def script(method: str, path: str, body: Any) -> Response | Exception | After:
        is_busy = batches.left == 0 and busy and method == "POST"
        return After(LATE_S + 1.0, busy.pop()) if is_busy else batches(method, path, body)

    teller, finished = emitter(tmp_path), Lost(AlreadyFinished("already_terminal"), certain_looks=math.inf)
    transport = await tell(OK, script, teller=teller, claim=finished)
    teller.outbox.close()
    assert names(transport.bodies("/api/events/batch")[-1]) == ["step.exit"]
    assert (busy, finished.was_asked) == ([], False)
