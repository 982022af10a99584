"""Retries during temporary trouble of the control plane, so that such trouble does not fail a claimed command."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

import structlog

from noetl_worker.errors import ControlPlaneError, ServerRefused
from noetl_worker.models import backoff
from noetl_worker.remote.plane.answers import MEANING, TEMPORARY, Meaning

T = TypeVar("T")
MAX_DELAY_S: Final = 10.0
UNCERTAIN_TRIES: Final = 6
UNCERTAIN_S: Final = 30.0
COMMAND_TRIES: Final = 20
"""Largest number of tries of one request for a claimed command, such as a request for a credential. All tries take
about a minute and a half. Meanwhile the worker extends the delivery of the command's message."""
STORE_UNCERTAIN_S: Final = 900.0
"""Seconds of uncertain answers after which the worker gives up storing a result (Rust plane). The time is long, since a
500 may mean that the store is down."""
_RETRY_ADVICE: Final = "do nothing: the request is sent again; look at `error` if this goes on"
log = structlog.get_logger("noetl_worker.patience")


class Uncertainty:
    """Counter of uncertain answers to a repeated request, which tells when to stop repeating. An uncertain answer, such
    as a 500, may be the fault of the plane or of the worker (protocol/events.md#python-plane).

    Repeating stops after enough tries and enough time. With a limit on tries alone, all tries were over in 3 s. Good
    results then failed while a plane restarted (seen in the simulator).
    """

    _tries = 0
    _since = float("inf")

    def reset(self) -> None:
        """Set the count of uncertain answers (such as a 500) back to zero: the last answer was clear, or the next
        request begins."""
        self._tries = 0
        self._since = float("inf")

    def add(self) -> None:
        self._tries += 1
        self._since = min(self._since, time.monotonic())

    def is_over(self, most_s: float = UNCERTAIN_S) -> bool:
        """Return whether to stop repeating a request and treat the request as refused. This is so after UNCERTAIN_TRIES
        uncertain answers in a row, if the first of them came at least `most_s` seconds ago."""
        return self._tries >= UNCERTAIN_TRIES and time.monotonic() - self._since >= most_s


def is_passing(error: ControlPlaneError) -> bool:
    """Return whether a call that failed with this error may succeed later: after a missing answer, a busy or
    unreachable plane, or refused credentials."""
    return error.is_retryable or (isinstance(error, ServerRefused) and MEANING[error.status] in TEMPORARY)


async def retry_while_passing(
    what: str,
    call: Callable[[], Awaitable[T]],
    *,
    max_tries: int | None = None,
    ids: Callable[[], Mapping[str, object]] = dict,
) -> T:
    """Repeat `call` while the plane's trouble is temporary, and return the result of `call`. The wait grows from about
    0.1 s to at most 10 s, with jitter.

    Args:
        what: name of the call in the log.
        max_tries: largest number of tries, or None to repeat for as long as the command may run.
        ids: function that returns the command's ids for the log.

    Raises:
        ControlPlaneError: the error of a call that will not succeed later, or of the last try.
    """
    tries, uncertainty = 0, Uncertainty()
    while True:
        try:
            return await call()
        except ControlPlaneError as error:
            tries += 1
            refused = error if isinstance(error, ServerRefused) else None
            is_uncertain = refused is not None and (refused.is_page or MEANING[refused.status] is Meaning.UNCERTAIN)
            if is_uncertain:
                uncertainty.add()
            else:
                uncertainty.reset()
            if not (is_passing(error) or (is_uncertain and not uncertainty.is_over())) or tries == max_tries:
                raise
            log.warning("request_retried", what=what, tries=tries, error=str(error), advice=_RETRY_ADVICE, **ids())
            await asyncio.sleep(backoff.delay_s(tries, 0.2, MAX_DELAY_S, jitter=0.9))
