"""What the result store of the Python plane can take, and for how long it is at it (wire.md 9.5).

It looks through what it stores in its event loop, at least twice, in a time that grows with the square of the longest
unbroken text: 50 kB take 4.9 s, 200 kB 70 s, and it answers nobody meanwhile.
"""

from __future__ import annotations

import asyncio
import string
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from noetl_worker.errors import NotSent, TransportError
from noetl_worker.models import JsonValue
from noetl_worker.plane.answers import CUT_BY_A_PROXY, MEANING, PASSES, Meaning
from noetl_worker.transport.transport import Response

__all__ = [
    "FIRST_ROUTE",
    "IN_MEMORY",
    "LONGEST_UNBROKEN",
    "StoreRoute",
    "has_expired",
    "has_unbroken_text",
    "is_no_route",
    "note_on",
    "scrubbing_s",
]

FIRST_ROUTE: Final = "/api/result"
_ROUTES: Final = (FIRST_ROUTE, "/api/api/result")
"""Where the Python plane has its store: v4.0.0 mounts it under a doubled prefix (wire.md T-10)."""
IN_MEMORY: Final = "memory"
"""The `store` of a result that only the server which took it has, until it is restarted: what a store falls back to."""
LONGEST_UNBROKEN: Final = 20_000
"""Bytes: 0.8 s at each look."""
# Base64 in both alphabets as well, and whatever is beyond ASCII: what that regular expression takes for a letter is not
# known, and a text too many that goes into the event does no harm.
_UNBROKEN: Final = (string.ascii_letters + string.digits + "_-+/=").encode() + bytes(range(0x80, 0x100))
_BYTES_PER_S: Final = 12_500
"""Of nothing but unbroken texts of that length, looked through twice."""


def has_unbroken_text(data: bytes) -> bool:
    """Whether JSON has a text in it without a space or a punctuation mark for more than LONGEST_UNBROKEN bytes."""
    for place in range(0, len(data), LONGEST_UNBROKEN):  # a longer one covers one of these places
        after = data[place : place + LONGEST_UNBROKEN + 1]
        before = data[max(0, place - LONGEST_UNBROKEN) : place]
        length = len(after) - len(after.lstrip(_UNBROKEN)) + len(before) - len(before.rstrip(_UNBROKEN))
        if length > LONGEST_UNBROKEN:
            return True
    return False


def scrubbing_s(size: int) -> float:
    """For how long the plane may be at a PUT of so many bytes that has no longer text in it."""
    return size / _BYTES_PER_S


class StoreRoute:
    """Where one server of the Python plane has its result store: the same for its life, so it is asked once."""

    def __init__(self) -> None:
        self.known = ""
        self._finding = asyncio.Lock()

    async def find(self, ask: Callable[[str], Awaitable[Response]], stale: str) -> Response | None:
        """Ask with a request that is nothing but the question: a result may be large.

        Args:
            ask: sends a GET of this path.
            stale: what was known, where the server has nothing there any more (another version is running).

        Returns:
            None when it is known; else an answer that leaves it open, for the request that needed it.

        Raises:
            NotSent: there was no answer, and the request that needed it has not left.
        """
        async with self._finding:
            if self.known != stale:  # found by another one meanwhile
                return None
            for route in _ROUTES:
                try:  # what is no reference is answered as it is (wire.md 9.4)
                    answer = await ask(f"{route}/resolve?ref=where")
                except TransportError as error:
                    raise NotSent(str(error)) from error
                if answer.status in CUT_BY_A_PROXY:
                    raise NotSent(f"GET {route}: {answer.status}")
                if not is_no_route(answer):
                    break
            meaning = MEANING[answer.status]
            if answer.status == 404 or meaning is Meaning.DOUBTFUL or meaning in PASSES:
                return answer
            self.known = route
            return None


def is_no_route(answer: Response) -> bool:
    """Whether the Python plane has nothing at this path, as against no result of that name."""
    return answer.status == 404 and answer.json() == {"detail": "Not Found"}


def has_expired(answer: Response) -> bool:
    """Whether the Python plane ends an entry of one server's memory with this answer, an hour after its PUT.

    It looks into the store itself at the next question: older versions, and one whose deletion failed, still have the
    data there (NATS keeps them for two hours).
    """
    return answer.status == 404 and b"TempRef expired" in answer.body


def note_on(answer: Response, said: Mapping[str, JsonValue]) -> str:
    """For the error of a result that is gone: when it was stored, as far as its reference says so, and what to do."""
    if answer.status != 404 or is_no_route(answer):
        return ""
    meta, until = said.get("meta"), said.get("expires_at")
    stored = meta.get("created_at") if isinstance(meta, dict) else None
    when = f"stored {stored}; " if stored else f"to be kept until {until}; " if until else ""
    return f" ({when}the result store has it no longer: start the execution again)"
