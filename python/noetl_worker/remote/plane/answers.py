"""What an HTTP status of a control plane means: one table. A caller overrides a row, and writes none anew.

A body can say more than its status (a 409, a 404 of a proxy, a 500 around a 503): that is the caller's to read.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from noetl_worker.remote.transport.transport import Response

MAX_RETRY_AFTER_S: Final = 30.0
"""Of a Retry-After that is obeyed: a plane is asked again within the time in which a claim is known to be ours."""
_MAX_HEADER_S: Final = 3600.0


class Meaning(Enum):
    ACCEPTED = "accepted"
    AUTH = "auth"
    """The credentials: nothing will succeed before they are mended, and then everything may."""
    PASSING = "passing"
    """The same request may be accepted later."""
    OVERLOADED = "overloaded"
    """The same, and the plane wants fewer requests."""
    UNCERTAIN = "uncertain"
    """A fault of the plane's, or our mistake."""
    REFUSED = "refused"

    __hash__ = object.__hash__


class _Meanings(dict[int, Meaning]):
    """A table, so that a status costs no call; with an answer for what is no status of HTTP, too."""

    def __missing__(self, status: int) -> Meaning:
        return Meaning.UNCERTAIN if is_server_error(status) else Meaning.REFUSED


def is_server_error(status: int) -> bool:
    return status >= 500


MEANING: Final = _Meanings(
    {
        **dict.fromkeys(range(200, 300), Meaning.ACCEPTED),
        **dict.fromkeys(range(300, 400), Meaning.UNCERTAIN),  # in no recording: somebody between
        **dict.fromkeys(range(500, 600), Meaning.UNCERTAIN),
        **dict.fromkeys((401, 403), Meaning.AUTH),
        **dict.fromkeys((408, 425), Meaning.PASSING),
        **dict.fromkeys((429, 502, 503, 504), Meaning.OVERLOADED),
    }
)
PASSES: Final = frozenset({Meaning.AUTH, Meaning.PASSING, Meaning.OVERLOADED})
"""What is asked again, for as long as it takes."""
CUT_BY_A_PROXY: Final = frozenset({502, 504})
"""The plane may be at the request still."""


def retry_after_s(answer: Response) -> float | None:
    """Retry-After in seconds; the planes send whole seconds only (protocol/claim.md#statuses)."""
    text = answer.headers.get("retry-after", "")
    return min(float(text), _MAX_HEADER_S) if text.isdecimal() else None


def not_found(answer: Response) -> bool:
    """Whether a 404 is the plane's own word: {"detail": "command not found: 7"}, {"error": "...", "status": 404}.

    A proxy in front of a plane that is being rolled out has a 404 too, which says nothing of what was asked for.
    """
    body = answer.json() if answer.status == 404 else None
    return isinstance(body, dict) and "not found" in str(body.get("detail", body.get("error", ""))).lower()


def is_page(answer: Response) -> bool:
    """Whether it has a body that is no object: a proxy's, where a plane has an object."""
    return bool(answer.body) and not isinstance(answer.json(), dict)


def is_outage(answer: Response) -> bool:
    """Of one that is OVERLOADED: whether a proxy says that nobody is behind it, and not the plane that it is busy."""
    return answer.status in CUT_BY_A_PROXY or not isinstance(answer.json(), dict)


def floor_s(header_s: float | None) -> float:
    """The least wait before the next try, where an answer had this Retry-After."""
    return min(header_s or 0.0, MAX_RETRY_AFTER_S)
