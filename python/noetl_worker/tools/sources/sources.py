"""Reading the code or SQL of a step: from the step itself, a file, an http(s) address, or an object of a bucket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools.contract import ToolContext, ToolSettings
from noetl_worker.tools.file_roots import opened
from noetl_worker.tools.process.shortage import before_any_effect
from noetl_worker.tools.sources.script_address import MAX_CODE_BYTES, decoded, parse_address

if TYPE_CHECKING:
    from noetl_worker.tools.sources.web_sources import WebSources


class Sources:
    """Reads the script of a step. The HTTP client is imported when an address is first fetched. Its connections stay
    open until `aclose`.

    Args:
        kind: the tool's kind, for messages.
    """

    def __init__(self, kind: str = "python") -> None:
        self._kind = kind
        self._web: WebSources | None = None

    async def of_script(self, script: str | Mapping[str, Any], context: ToolContext) -> str:
        """Return the text of a `script` field.

        Raises:
            ConfigurationError: the field is wrong, or the script cannot be read.
            ToolError: the server does not answer, or answers with a status other than 2xx.
        """
        place = parse_address(script, self._kind)
        if place.code is not None:
            return place.code
        with before_any_effect("to fetch the script"):
            if urlsplit(place.uri).scheme in ("", "file"):
                return await asyncio.to_thread(_read_file, place.uri, self._kind, context.settings)
            web = await asyncio.to_thread(import_module, "noetl_worker.tools.sources.web_sources")
            self._web = self._web or web.WebSources(self._kind)
            return await self._web.fetched(place.uri, place.details, context)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._web is not None:
            await self._web.aclose()


def _read_file(uri: str, kind: str, settings: ToolSettings) -> str:
    path = Path(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri)
    with opened(f"{kind}: script", uri, path, settings) as file:
        data = file.read(MAX_CODE_BYTES + 1)
    if len(data) > MAX_CODE_BYTES:
        raise ConfigurationError(f"{kind}: script {uri!r} is over {MAX_CODE_BYTES >> 20} MiB")
    return decoded(data, uri, kind)
