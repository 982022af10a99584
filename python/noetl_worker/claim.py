"""Stage 3: ask the control plane for the command. One table from the answer to what it means.

Architecture 4: the 409s are not one thing, and a claim answer decides over ack and nak, so every row is here.
"""

from __future__ import annotations

from typing import Final

from noetl_worker.control_plane.client import Plane, json_body, refusal, retry_after_s
from noetl_worker.control_plane.transport import Response
from noetl_worker.errors import MaybeProcessed, TransportError
from noetl_worker.models import (
    AlreadyFinished,
    AuthRefusedClaim,
    Claimed,
    ClaimOutcome,
    Dialect,
    HeldByOther,
    HeldByThisWorker,
    JsonValue,
    NotFound,
    Refused,
    RetryLater,
)

__all__ = ["claim_command", "read_claim"]

LOST_ANSWER_TRIES: Final = 3


async def claim_command(plane: Plane, event_id: int, worker_id: str) -> ClaimOutcome:
    """Claim the command of a `command.issued` event once. Never raises for what a server or a network does."""
    for left in reversed(range(LOST_ANSWER_TRIES)):
        try:
            return read_claim(await plane.claim(event_id, worker_id), plane.dialect)
        except MaybeProcessed as error:
            # The claim may be ours now, and then every other worker is refused: ask again, the same id gets it again.
            if left == 0:
                return RetryLater(str(error))
        except TransportError as error:
            return RetryLater(str(error))
    raise AssertionError("the last try returns")


def read_claim(answer: Response, dialect: Dialect) -> ClaimOutcome:
    """What one answer means (the table of ARCHITECTURE 4; wire.md 3.2, 9.3, 9.4)."""
    status = answer.status
    text = str(refusal("claim", answer))
    if status in (200, 201):
        return _read_success(answer)
    if status == 409:
        body = json_body(answer)
        wait_s = retry_after_s(answer)
        return _read_python_409(body, text, wait_s) if dialect is Dialect.PYTHON else _read_rust_409(body, text, wait_s)
    if status in (401, 403):
        return AuthRefusedClaim(text)
    if status == 404:
        # A proxy in front of a plane that is being rolled out has a 404 page too, and it says nothing of a command.
        return NotFound(text) if _is_of_a_plane(json_body(answer)) else RetryLater(text, is_server_error=True)
    if status in (408, 425, 429) or status >= 500:
        return RetryLater(text, retry_after_s(answer), is_server_error=status >= 500)
    return Refused(text)


def _is_of_a_plane(body: JsonValue) -> bool:
    """{"detail": "command not found: 7"} or {"error": "command not found: 7", "status": 404}."""
    return isinstance(body, dict) and "not found" in str(body.get("detail", body.get("error", ""))).lower()


def _read_success(answer: Response) -> ClaimOutcome:
    body = json_body(answer)
    if not isinstance(body, dict):
        return Refused(f"claim answered {answer.status} with a body that is not a JSON object: is a proxy in between?")
    missing = [key for key in ("execution_id", "node_name", "action") if body.get(key) is None]
    if missing:
        return Refused(f"claim answered {answer.status} without {', '.join(missing)}")
    if not isinstance(body.get("context") or {}, dict) or not isinstance(body.get("meta") or {}, dict):
        return Refused(f"claim answered {answer.status} with a context or meta that is not an object")
    return Claimed(body)


def _read_python_409(body: JsonValue, text: str, wait_s: float | None) -> ClaimOutcome:
    detail = body.get("detail") if isinstance(body, dict) else None
    if not isinstance(detail, dict):
        return RetryLater(text, wait_s)
    code = detail.get("code")
    if code in ("already_terminal", "execution_cancelled"):
        return AlreadyFinished(text)
    if code == "active_claim" and detail.get("worker_id"):
        return HeldByOther(text, wait_s)
    if code == "active_claim" and detail.get("worker_status"):
        return HeldByThisWorker(text, wait_s)
    # "Command is being claimed": a momentary lock without an owner. Acked, it would wait for the reaper (T-27).
    return RetryLater(text, wait_s)


def _read_rust_409(body: JsonValue, text: str, wait_s: float | None) -> ClaimOutcome:
    said = str(body.get("error", "")).lower() if isinstance(body, dict) else ""
    if "terminal state" in said or "cancelled" in said:
        return AlreadyFinished(text)
    if "already claimed by" in said:
        return HeldByOther(text, wait_s)
    return RetryLater(text, wait_s)
