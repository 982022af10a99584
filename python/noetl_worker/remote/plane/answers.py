"""Meanings of a control plane's HTTP statuses, in one table. A caller may treat single statuses differently, but has no
table of its own.

For some answers the body says more than the status: a 409, a proxy's 404, a 500 that wraps a 503. The caller reads the
body of such an answer.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from noetl_worker.remote.transport.transport import Response

MAX_RETRY_AFTER_S: Final = 30.0
"""Longest Retry-After, in seconds, that the worker obeys. A Retry-After delays heartbeats too, so after a longer delay
the worker would lose its claims."""
_MAX_HEADER_S: Final = 3600.0


class Meaning(Enum):
    ACCEPTED = "accepted"
    AUTH = "auth"
    """Refused credentials: every request fails until an operator corrects the credentials. The same request may succeed
    afterwards."""
    PASSING = "passing"
    """Temporary trouble: the same request may be accepted later."""
    OVERLOADED = "overloaded"
    """Temporary trouble of a plane that wants fewer requests."""
    UNCERTAIN = "uncertain"
    """Unclear answer: a fault of the plane, or a mistake of the worker."""
    REFUSED = "refused"

    __hash__ = object.__hash__


class _Meanings(dict[int, Meaning]):
    """Table with the meaning of each HTTP status. A status that is not in the table means UNCERTAIN if it is 500 or
    more, else REFUSED."""

    def __missing__(self, status: int) -> Meaning:
        return Meaning.UNCERTAIN if is_server_error(status) else Meaning.REFUSED


def is_server_error(status: int) -> bool:
    return status >= 500


MEANING: Final = _Meanings(
    {
        **dict.fromkeys(range(200, 300), Meaning.ACCEPTED),
        **dict.fromkeys(range(300, 400), Meaning.UNCERTAIN),  # a proxy's: no plane was recorded to send one
        **dict.fromkeys(range(500, 600), Meaning.UNCERTAIN),
        **dict.fromkeys((401, 403), Meaning.AUTH),
        **dict.fromkeys((408, 425), Meaning.PASSING),
        **dict.fromkeys((429, 502, 503, 504), Meaning.OVERLOADED),
    }
)
TEMPORARY: Final = frozenset({Meaning.AUTH, Meaning.PASSING, Meaning.OVERLOADED})
"""Meanings of answers that tell of temporary trouble. After such an answer the worker repeats the same request."""
CUT_BY_A_PROXY: Final = frozenset({502, 504})
"""Statuses of a proxy that stopped waiting for the plane's answer. The plane may still process the request."""


def retry_after_s(answer: Response) -> float | None:
    """Return the seconds in an answer's header Retry-After, or None if the header is missing or is not a whole number.
    The planes send whole seconds only (protocol/claim.md#statuses)."""
    text = answer.headers.get("retry-after", "")
    return min(float(text), _MAX_HEADER_S) if text.isdecimal() else None


def not_found(answer: Response) -> bool:
    """Return whether the plane itself answered 404: `{"detail": "command not found: 7"}` or `{"error": "not found",
    "status": 404}`.

    A proxy also answers 404 while the plane behind the proxy is replaced. A proxy's 404 does not mean that the
    requested object is missing.
    """
    body = answer.json() if answer.status == 404 else None
    return isinstance(body, dict) and "not found" in str(body.get("detail", body.get("error", ""))).lower()


def is_page(answer: Response) -> bool:
    """Return whether the answer has a body that is not a JSON object. Planes send objects, so such a body is a proxy's
    page."""
    return bool(answer.body) and not isinstance(answer.json(), dict)


def is_outage(answer: Response) -> bool:
    """Return whether an OVERLOADED answer comes from a proxy that cannot reach the plane, not from the plane itself."""
    return answer.status in CUT_BY_A_PROXY or not isinstance(answer.json(), dict)


def min_retry_delay_s(header_s: float | None) -> float:
    """Return the shortest wait, in seconds, before a request may be repeated. This is the Retry-After of the answer, at
    most MAX_RETRY_AFTER_S, or 0 without a Retry-After."""
    return min(header_s or 0.0, MAX_RETRY_AFTER_S)
