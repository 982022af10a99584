"""What the answer to a request of events means, as far as both planes agree (protocol/events.md)."""

from __future__ import annotations

from enum import Enum
from typing import Final

from noetl_worker.remote.plane.answers import MEANING, PASSES, Meaning, is_page
from noetl_worker.remote.transport.transport import Response

_REFUSALS: Final = frozenset({400, 409, 413, 422})
"""Of what is refused, all that a plane says about a set; any other is a route that is missing, or somebody between."""


class SendStatus(Enum):
    ACCEPTED = "accepted"
    PASSING = "passing"
    """Try again for as long as it takes."""
    UNCERTAIN = "uncertain"
    """Try again some times: it may pass, or be our mistake."""
    REFUSED = "refused"
    """The same body will never be accepted."""
    NEW_ID = "new_id"
    """Our event id is taken by another event (Rust plane)."""
    LOST = "lost"
    """Stored, and never to be processed (Python plane)."""
    DUPLICATE = "duplicate"
    """Sent before under the same key, and stored then; whether it was processed is not said (Python plane)."""

    __hash__ = object.__hash__


NOT_CLEAR: Final = frozenset({SendStatus.NEW_ID, SendStatus.LOST, SendStatus.DUPLICATE})
"""What the plane's own records have to be asked about (ends.py)."""


def judge(answer: Response) -> SendStatus:
    is_the_planes, means, status = isinstance(answer.json(), dict), MEANING[answer.status], answer.status
    if means is Meaning.ACCEPTED and is_the_planes:
        return SendStatus.ACCEPTED
    # Somebody between, who says nothing of the set. Not so with a 400 or 413: a firewall may refuse this body for ever.
    if means in PASSES or 300 <= status < 400 or (is_page(answer) and (means is Meaning.ACCEPTED or status == 404)):
        return SendStatus.PASSING
    # A route that is missing while the plane is replaced says nothing about the set either.
    return SendStatus.REFUSED if is_the_planes and status in _REFUSALS else SendStatus.UNCERTAIN
