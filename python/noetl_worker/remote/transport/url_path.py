"""Path of a request, made of escaped segments. Escaping prevents a text from a playbook or server from leading to
another path."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlencode

from noetl_worker.errors import ConfigurationError

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+").fullmatch
"""Match function for a path segment that needs no escaping and has no dot. Most segments match."""
_CLAIM_SEGMENTS: Final = frozenset({"api", "commands", "claim"})
"""Fixed segments in the path of each claim request. To save time, these words are not escaped or checked for `..`."""
_LEADS_ELSEWHERE: Final = re.compile(r"(?:^|[/\\])\.\.?(?:[/\\]|$)")
"""Pattern for `.` and `..` in a segment, also beside an escaped slash. A proxy may decode `%2F` to `/` before the proxy
resolves the dots."""


def url_path(*segments: str | int, **query: str | int | None) -> str:
    """Return a path such as `/a/b?c=d`, made of escaped segments and query parameters. A parameter that is None is left
    out.

    Raises:
        ConfigurationError: a segment is empty, or has `.` or `..` as a part.
    """
    path = ""
    for segment in segments:
        if type(segment) is int or segment in _CLAIM_SEGMENTS:
            path += f"/{segment}"
            continue
        text = str(segment)
        if _PLAIN(text) is not None:
            path += f"/{text}"
            continue
        if not text or _LEADS_ELSEWHERE.search(text):
            raise ConfigurationError(
                f"{text[:200]!r} cannot be a part of an address, since it is empty or has '.' or '..': use another name"
            )
        path += f"/{quote(text, safe='')}"
    if query and (given := {name: value for name, value in query.items() if value is not None}):
        path += f"?{urlencode(given, quote_via=quote, safe='')}"
    return path
