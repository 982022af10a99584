"""Meanings of a plane's answer to a request with events. `judge` finds the meaning of answers that both planes give in
the same way (protocol/events.md)."""

from __future__ import annotations

from enum import Enum
from typing import Final

from noetl_worker.remote.plane.answers import MEANING, TEMPORARY, Meaning, is_page
from noetl_worker.remote.transport.transport import Response

_REFUSALS: Final = frozenset({400, 409, 413, 422})
"""HTTP statuses with which a plane itself finally refuses a request with events. Any other status may also come from a
missing route, a proxy, or a fault of the plane."""


class SendStatus(Enum):
    ACCEPTED = "accepted"
    PASSING = "passing"
    """Temporary trouble of the plane: the worker repeats the request without a limit."""
    UNCERTAIN = "uncertain"
    """Unclear answer, from trouble of the plane or a mistake of the worker: the worker repeats the request for a
    limited time."""
    REFUSED = "refused"
    """Final refusal: the same body will never be accepted."""
    NEW_ID = "new_id"
    """Refused because another event has the same id: the worker repeats the request with a new id (Rust plane)."""
    LOST = "lost"
    """The plane has stored the events but will never process them (Python plane)."""
    DUPLICATE = "duplicate"
    """The plane had already stored the events under the same Idempotency-Key, but has perhaps not processed them
    (Python plane)."""

    __hash__ = object.__hash__


NOT_CLEAR: Final = frozenset({SendStatus.NEW_ID, SendStatus.LOST, SendStatus.DUPLICATE})
"""Statuses that do not tell whether the plane has stored and processed the events. Only the plane's own records tell
(pipeline/report/outcomes.py)."""


def judge(answer: Response) -> SendStatus:
    is_the_planes, means, status = isinstance(answer.json(), dict), MEANING[answer.status], answer.status
    if means is Meaning.ACCEPTED and is_the_planes:
        return SendStatus.ACCEPTED
    # A proxy's answer says nothing about the events, except a 400 or 413: a firewall may refuse this body for ever.
    if means in TEMPORARY or 300 <= status < 400 or (is_page(answer) and (means is Meaning.ACCEPTED or status == 404)):
        return SendStatus.PASSING
    # A route that is missing while the plane is replaced says nothing about the events either.
    return SendStatus.REFUSED if is_the_planes and status in _REFUSALS else SendStatus.UNCERTAIN
