"""The path of a server's result store, which versions of the Python plane have in two places."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from noetl_worker.errors import NotSent, TransportError
from noetl_worker.models.wire import JsonValue
from noetl_worker.remote.plane.answers import CUT_BY_A_PROXY, MEANING, PASSES, Meaning
from noetl_worker.remote.plane.rules import DialectRules
from noetl_worker.remote.transport.transport import Response


class StoreRoute:
    """The path of one server's result store: the same for its life, so it is asked once."""

    def __init__(self) -> None:
        self.known = ""
        self._finding = asyncio.Lock()

    async def find(self, ask: Callable[[str], Awaitable[Response]], stale: str, rules: DialectRules) -> Response | None:
        """Ask with a request that is nothing but the question: a result may be large.

        Args:
            ask: sends a GET of this path.
            stale: what was known, where the server has nothing there any more (another version is running).
            rules: those of its dialect.

        Returns:
            None when it is known; else an answer that leaves it open, for the request that needed it.

        Raises:
            NotSent: there was no answer, and the request that needed it has not left.
        """
        async with self._finding:
            if self.known != stale:  # found by another one meanwhile
                return None
            for route in rules.store_routes:
                try:  # what is no reference is answered as it is (protocol/results.md#store)
                    answer = await ask(f"{route}/resolve?ref=where")
                except TransportError as error:
                    raise NotSent(str(error)) from error
                if answer.status in CUT_BY_A_PROXY:
                    raise NotSent(f"GET {route}: {answer.status}")
                if not rules.is_no_route(answer):
                    break
            meaning = MEANING[answer.status]
            if answer.status == 404 or meaning is Meaning.UNCERTAIN or meaning in PASSES:
                return answer
            self.known = route
            return None


def note_on(answer: Response, said: Mapping[str, JsonValue], rules: DialectRules) -> str:
    """For the error of a result that is gone: when it was stored, as far as its reference says so, and what to do."""
    if answer.status != 404 or rules.is_no_route(answer):
        return ""
    meta, until = said.get("meta"), said.get("expires_at")
    stored = meta.get("created_at") if isinstance(meta, dict) else None
    when = f"stored {stored}; " if stored else f"to be kept until {until}; " if until else ""
    return f" ({when}the result store has it no longer: start the execution again)"
