"""Waiting out a passing trouble of the control plane: one blip after the claim must not fail the command."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from noetl_worker.errors import ControlPlaneError, ServerRefused

__all__ = ["is_passing", "until_it_passes"]

T = TypeVar("T")
PASSING_STATUS: Final = frozenset({401, 403, 408, 425, 429, 502, 503, 504})
MAX_DELAY_S: Final = 10.0
DOUBTFUL_TRIES: Final = 6
DOUBT_S: Final = 30.0
"""A 500 may be our mistake as well as a fault (wire.md 3.4): bounded in tries and time, where a passing trouble is not.
Tries alone are over in 3 s, and a restarting plane would cost the result."""
log = structlog.get_logger("noetl_worker.patience")


def is_passing(error: ControlPlaneError) -> bool:
    """Whether the same call may succeed later: no answer, a busy or unreachable plane, refused credentials."""
    return error.is_retryable or (isinstance(error, ServerRefused) and error.status in PASSING_STATUS)


async def until_it_passes(what: str, call: Callable[[], Awaitable[T]], *, max_tries: int | None = None) -> T:
    """The result of `call`, repeated (0.1 s growing to 10 s, jitter) while the trouble is a passing one.

    Args:
        what: named in the log.
        max_tries: give up after so many; None goes on for as long as the command may run.

    Raises:
        ControlPlaneError: a trouble that does not pass, or the last one.
    """
    tries, since = 0, time.monotonic()
    while True:
        try:
            return await call()
        except ControlPlaneError as error:
            tries += 1
            is_early = tries < DOUBTFUL_TRIES or time.monotonic() - since < DOUBT_S
            doubtful = isinstance(error, ServerRefused) and error.status >= 500 and is_early
            if not (is_passing(error) or doubtful) or tries == max_tries:
                raise
            log.warning("not_yet", what=what, tries=tries, error=str(error))
            await asyncio.sleep(min(MAX_DELAY_S, 0.1 * 2.0 ** min(tries, 10)) * random.uniform(0.1, 1.0))
