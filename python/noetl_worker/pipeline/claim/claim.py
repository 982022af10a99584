"""The stage `claiming`: sends the claim of a command to the control plane, and reads the answer.

An HTTP answer 409 has several meanings. The meaning decides between ack and nak (protocol/claim.md#python-plane).
"""

from __future__ import annotations

from typing import Final

from noetl_worker.errors import AnswerTooLarge, MaybeProcessed, TransportError
from noetl_worker.models.claim import AuthRefusedClaim, ClaimAnswer, Claimed, ClaimRefused, NotFound, RetryLater
from noetl_worker.models.disposition import assert_never
from noetl_worker.models.fit import LESS_ADVICE
from noetl_worker.models.wire import Dialect
from noetl_worker.pipeline.claim.text_marks import read_marks
from noetl_worker.remote.plane.answers import MEANING, Meaning, is_server_error, not_found, retry_after_s
from noetl_worker.remote.plane.client import Plane, refusal
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.remote.transport.transport import Response

LOST_ANSWER_TRIES: Final = 3
_NEEDED: Final = ("execution_id", "node_name", "action")


async def claim_command(plane: Plane, event_id: int, worker_id: str) -> ClaimAnswer:
    """Claim the command that a `command.issued` event describes. If the request fails, return RetryLater or
    ClaimRefused instead of raising an exception."""
    for left in reversed(range(LOST_ANSWER_TRIES)):
        try:
            return read_claim(await plane.claim(event_id, worker_id), plane.dialect)
        except AnswerTooLarge as error:
            return ClaimRefused(f"{error}: {LESS_ADVICE}")
        except MaybeProcessed as error:
            # The plane may have granted this claim. It then refuses other workers, and grants this worker's next try.
            if left == 0:
                return RetryLater(str(error))
        except TransportError as error:
            return RetryLater(str(error))
    raise AssertionError("unreachable: the last try always returns an answer")


def read_claim(answer: Response, dialect: Dialect) -> ClaimAnswer:  # noqa: RET503 - the last row does not return
    """Return the meaning of the plane's HTTP answer to a claim, as a ClaimAnswer. docs/delivery.md has the table of all
    answers, and protocol/claim.md the evidence."""
    status = answer.status
    if status in (200, 201):
        return _read_success(answer)
    text = str(refusal("claim", answer))
    if status == 409:
        return RULES[dialect].read_conflict(answer.json(), text, retry_after_s(answer))
    if status == 404:
        return NotFound(text) if not_found(answer) else RetryLater(text, is_server_error=True)
    means = MEANING[status]
    match means:
        case Meaning.AUTH:
            return AuthRefusedClaim(text)
        case Meaning.PASSING | Meaning.OVERLOADED:
            return RetryLater(text, retry_after_s(answer), is_server_error=is_server_error(status))
        case Meaning.UNCERTAIN | Meaning.ACCEPTED:  # a redirect, or another 2xx: no plane sends these
            return RetryLater(text, retry_after_s(answer), is_server_error=True)
        case Meaning.REFUSED:
            return ClaimRefused(text)
        case _:
            assert_never(means)


def _read_success(answer: Response) -> ClaimAnswer:
    body = answer.json()
    if type(body) is not dict:
        return _no_object(answer)
    for needed in _NEEDED:
        if needed not in body or body[needed] is None:
            missing = [key for key in _NEEDED if body.get(key) is None]
            return ClaimRefused(f"claim answered {answer.status} without {', '.join(missing)}")
    if type(body.get("context") or {}) is not dict or type(body.get("meta") or {}) is not dict:
        return ClaimRefused(f"claim answered {answer.status} with a context or meta that is not an object")
    return Claimed(body, read_marks(answer.body), len(answer.body))


def _no_object(answer: Response) -> ClaimAnswer:
    what = f"claim answered {answer.status} with a body that is not a JSON object"
    if answer.error is not None:
        what = f"{what} ({answer.error})"
        if answer.error.code == "json_size":  # the plane's own answer, which will be too large every time
            return ClaimRefused(what)
    return RetryLater(f"{what}: is a proxy in between?", is_server_error=True)
