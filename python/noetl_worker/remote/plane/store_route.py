"""Path of a server's result store, which differs between versions of the Python plane."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from noetl_worker.errors import NotSent, TransportError
from noetl_worker.models.wire import JsonValue
from noetl_worker.remote.plane.answers import CUT_BY_A_PROXY, MEANING, PASSES, Meaning
from noetl_worker.remote.plane.rules import DialectRules
from noetl_worker.remote.transport.transport import Response


class StoreRoute:
    """The path of one server's result store, which stays the same until another version of the server runs."""

    def __init__(self) -> None:
        self.known = ""
        self._finding = asyncio.Lock()

    async def find(self, ask: Callable[[str], Awaitable[Response]], stale: str, rules: DialectRules) -> Response | None:
        """Find the path by a small request, because the request that needs the path may carry a large result.

        Args:
            ask: sends a GET of a path.
            stale: path known before, which the server no longer has because another version runs, or "".
            rules: the dialect's rules.

        Returns:
            None if the path is known now, else an answer of the plane for the request that needs the path.

        Raises:
            NotSent: no answer came; the request that needs the path has not left.
        """
        async with self._finding:
            if self.known != stale:  # another request has found it
                return None
            for route in rules.store_routes:
                try:  # a text that is no reference is answered as it is (protocol/results.md#store)
                    answer = await ask(f"{route}/resolve?ref=where")
                except TransportError as error:
                    raise NotSent(str(error)) from error
                if answer.status in CUT_BY_A_PROXY:
                    raise NotSent(f"GET {route}: {answer.status} of a proxy: check the control plane behind it")
                if not rules.is_no_route(answer):
                    break
            meaning = MEANING[answer.status]
            if answer.status == 404 or meaning is Meaning.UNCERTAIN or meaning in PASSES:
                return answer
            self.known = route
            return None


def missing_result_note(answer: Response, said: Mapping[str, JsonValue], rules: DialectRules) -> str:
    """Return a note for the error of a missing result: when the result was stored, if known, and what to do."""
    if answer.status != 404 or rules.is_no_route(answer):
        return ""
    meta, until = said.get("meta"), said.get("expires_at")
    stored = meta.get("created_at") if isinstance(meta, dict) else None
    when = f"stored {stored}; " if stored else f"to be kept until {until}; " if until else ""
    return f" ({when}no longer in the result store: start the execution again)"
