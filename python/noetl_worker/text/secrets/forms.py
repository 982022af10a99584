"""The forms a secret text may leave in: as JSON, SQL, HTML and URL text, quoted by a shell, in base64 and hex.

A form of its own comes only from characters that are in the secret: one of letters and digits has two forms of text
(as it is and in base64 or hex), one with a quote, a slash or a space has a dozen more. Not covered, because there is
no end to them: encodings of encodings, and percent-encoding of some characters that no library leaves out.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

_LINE_CHARS: Final = 16
_MIN_ENCODED: Final = 8
"""Shorter encoded pieces (base64, hex) turn up by chance."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.-]*")
"""What no text format escapes."""
_ESCAPED: Final = re.compile(r"%[0-9A-F]{2}")
_SAFE_IN_URLS: Final = (
    "",  # quote(safe=""), form fields
    "/",  # quote
    "*",  # a browser's form fields
    "!*'()",  # encodeURIComponent
    "!$&'()*+,;=",  # user and password of an address (RFC 3986)
    "!$&'()*+,;=:",
    "!$&'()*+,;=:@",  # a path's segment
    "!$&'()*+,;=:@/",  # a path
    "!$&'()*+,;=:@/?",  # a query: httpx, requests
    "!$&'()*+,;=:@/?#",  # encodeURI
    "!$&'()*+,;=:@/?#[]%",  # requote_uri: escapes what cannot stand in an address at all
)
_HTML_QUOTES: Final = ({'"': "&quot;", "'": "&#x27;"}, {'"': "&#34;", "'": "&#39;"}, {'"': "&quot;", "'": "&apos;"})
"""html.escape; markupsafe, Go; XML."""


def written_forms(text: str) -> Iterator[str]:
    """Yield the text and how other texts quote it, some of them twice."""
    yield text
    yield text.strip()
    if not _PLAIN.fullmatch(text):
        yield from _in_json(text)
        yield from _in_quotes(text)
        yield from _in_html(text)
        yield from _in_urls(text)


def encoded_forms(text: str) -> Iterator[str]:
    """Yield what is left of the text in base64 and hex, which begins and ends in the middle of a longer word."""
    raw = text.encode("utf-8", "replace")
    encoded = [raw.hex(), raw.hex().upper(), *_base64_cores(raw)]
    yield from (form for form in encoded if len(form) >= _MIN_ENCODED)


def lines_of(text: str) -> Iterator[str]:
    """Yield the lines of a key file, each of which is secret by itself."""
    for line in text.splitlines():
        if len(line.strip()) >= _LINE_CHARS and not line.startswith("-----"):
            yield line.strip()


def _in_json(text: str) -> Iterator[str]:
    for form in (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
        yield form
        yield form.replace("/", "\\/")  # PHP
        for_pages = form.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
        yield for_pages  # Go
        yield for_pages.replace("'", "\\u0027")  # the `tojson` of templates


def _in_quotes(text: str) -> Iterator[str]:
    yield repr(text)[1:-1]  # how a KeyError, a traceback and a log of arguments quote it
    if "'" in text:
        yield text.replace("'", "''")  # SQL
        yield text.replace("'", "'\"'\"'")  # shlex.quote
        yield text.replace("'", "'\\''")  # the trace of a shell
        yield text.replace("\\", "\\\\").replace("'", "\\'")  # repr beside other quotes, MySQL
    if '"' in text:
        yield text.replace('"', '""')  # CSV, names in SQL


def _in_html(text: str) -> Iterator[str]:
    escaped = html.escape(text, quote=False)
    yield escaped
    for quotes in _HTML_QUOTES:
        yield escaped.replace('"', quotes['"']).replace("'", quotes["'"])


def _in_urls(text: str) -> Iterator[str]:
    # Most of the sets are the same for one secret: what they leave as it is, is not in it.
    for safe in {"".join(sign for sign in signs if sign in text) for signs in _SAFE_IN_URLS}:
        form = quote(text, safe=safe, errors="replace")
        if form != text:
            yield from _in_url_cases(form)
    if "~" in text:
        yield from _in_url_cases(quote(text, safe="*", errors="replace").replace("~", "%7E"))  # a browser's forms


def _in_url_cases(form: str) -> Iterator[str]:
    in_lower_case = _ESCAPED.sub(lambda found: found.group().lower(), form)
    for form_text in (form, in_lower_case):
        yield form_text
        yield form_text.replace("%20", "+")  # form fields


def _base64_cores(raw: bytes) -> Iterator[str]:
    """The part of the base64 text that holds `raw` alone, for each of the three places it may start at."""
    for shift in range(3):
        start = (shift * 8 + 5) // 6  # the first digit with no bit of what stands before
        end = (shift + len(raw)) * 8 // 6  # digits after it share bits with what follows
        core = base64.b64encode(b"\0" * shift + raw + b"\0\0").decode()[start:end]
        yield core
        yield core.replace("+", "-").replace("/", "_")
