"""The calls to the control plane that a running tool may make."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from noetl_worker.engine import chosen as engine
from noetl_worker.errors import DocumentError, ToolError
from noetl_worker.models.command import Command
from noetl_worker.models.fit import FitRules, SecretTexts
from noetl_worker.models.wire import JsonValue
from noetl_worker.remote.plane.client import Plane
from noetl_worker.text import json_text
from noetl_worker.text.null_characters import NullCharacters, has_null
from noetl_worker.text.secrets import redaction
from noetl_worker.text.templates.redacted import mark_stored

_MOST_PLACES: Final = 10
_STORED_ADVICE: Final = (
    "rename the fields in `places`, or put the result into a file or an object store (artifact): the control plane "
    "took these fields for secrets when it stored the result"
)


class ToolPlane:
    """The control plane, as one command's tool may use it (tools/contract.py, ToolControlPlane).

    The command's secrets are redacted in all values that the tool sends to the plane.
    """

    def __init__(
        self, plane: Plane, command: Command, known: Callable[[], SecretTexts], log: Callable[[], Any]
    ) -> None:
        self._plane = plane
        self._command = command
        self._known = known
        self._log = log
        self.execution_status: Final = plane.execution_status
        self.execution_detail: Final = plane.execution_detail

    async def execute_playbook(self, body: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        return await self._plane.execute_playbook(await self._safe(body))

    async def playbook(self) -> Mapping[str, JsonValue]:
        catalog_id = self._command.catalog_id
        if catalog_id is None:
            raise ToolError(
                "the command has no catalog_id, so its playbook cannot be looked up: register the playbook, and start "
                "it from the catalog",
                kind="parse",
            )
        entry = await self._plane.catalog_entry(catalog_id)
        try:
            found = await asyncio.to_thread(self._plane.rules.playbook_in, entry)
        except DocumentError as error:
            raise ToolError(
                f"catalog entry {catalog_id}: {error}: register the playbook again", kind="parse"
            ) from error
        if not isinstance(found, Mapping):
            raise ToolError(f"catalog entry {catalog_id} has no playbook: register the playbook again", kind="parse")
        return found

    async def put_result(self, name: str, data: bytes, *, source_step: str) -> Mapping[str, JsonValue]:
        safe = await asyncio.to_thread(engine.fit_result, data, FitRules.for_secrets(self._known(), max_bytes=2**62))
        _require_no_null(safe.body, "the value to store")
        return await self._plane.put_result(self._command.execution_id, name, safe.body, source_step=source_step)

    async def resolve_result(self, ref: str) -> JsonValue:
        found, packed = await self._plane.stored_result(ref)
        if places := mark_stored(found, packed, "", redacts=self._plane.rules.redacts_results):
            places = places[:_MOST_PLACES]
            self._log().warning("stored_result_redacted_by_plane", ref=ref, places=places, advice=_STORED_ADVICE)
        return found

    async def get_var(self, name: str) -> JsonValue:
        return await self._plane.get_var(self._command.execution_id, name)

    async def set_vars(self, variables: Mapping[str, JsonValue]) -> None:
        await self._plane.set_vars(self._command.execution_id, await self._safe(variables), self._command.step)

    async def _safe(self, body: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        given = json_text.plain(body)
        safe: Mapping[str, JsonValue] = await redaction.remove_known_off_loop(given, self._known())
        _require_no_null(json_text.dumps(safe), "the value to pass on")
        if safe != given:
            advice = "pass the credential's alias on, not its secret: the secret was replaced in these fields"
            differing = sorted(name for name in safe if name not in given or given[name] != safe[name])
            self._log().warning("secret_not_passed_on", fields=differing, advice=advice)
        return safe


def _require_no_null(packed: bytes, what: str) -> None:
    """Raise ToolError if the JSON has a null character, which no plane can store."""
    if has_null(packed):
        raise ToolError(NullCharacters.find(packed).refusal(what), kind="transform")
