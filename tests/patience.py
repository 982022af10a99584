"""How long a test waits for what has to come: so long that it only ends a wait for what never comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

PATIENCE_S: Final = 120.0
"""Below the timeout of a test, whose end names no reason."""


async def until(
    predicate: Callable[[], bool | Awaitable[bool]], what: str, *, every_s: float = 0.03, within_s: float = PATIENCE_S
) -> None:
    """Ask again and again until it holds. Raises TimeoutError that names `what`."""
    began_s = time.monotonic()
    while True:
        answer = predicate()
        if answer if isinstance(answer, bool) else await answer:
            return
        if time.monotonic() - began_s > within_s:
            raise TimeoutError(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(every_s)
