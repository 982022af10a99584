"""Path of a request, made of escaped segments, so that a text of a playbook or server cannot lead to another path."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlencode

from noetl_worker.errors import ConfigurationError

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+").fullmatch
"""Match function for a segment with nothing to escape and no dot, as most segments are."""
_CLAIM_SEGMENTS: Final = frozenset({"api", "commands", "claim"})
"""Segments of each claim's path, which need no check."""
_LEADS_ELSEWHERE: Final = re.compile(r"(?:^|[/\\])\.\.?(?:[/\\]|$)")
"""Matches `.` and `..`, also within a segment: a proxy may read `%2F` as `/` before it resolves the dots."""


def url_path(*segments: str | int, **query: str | int | None) -> str:
    """Return `/a/b?c=d` with each part escaped. A parameter that is None is left out.

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
