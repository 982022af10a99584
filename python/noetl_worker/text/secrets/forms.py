"""The forms in which a secret may be written: in JSON, SQL, HTML and URLs, quoted by a shell, in base64 and hex.

The characters of a secret decide how many forms the secret has. A secret of letters and digits is written unchanged, in
base64 or in hex. A secret with a quote, a slash or a space has a dozen more forms.

Two kinds of forms are not covered, because there is no end to them. The first is an encoding of an encoding. The second
is the percent-encoding of characters that all libraries leave unchanged.
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
"""Least characters of an encoded form (base64, hex) to look for. Shorter forms occur in data by chance."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.-]*")
"""Pattern of secrets that JSON, SQL, HTML, URLs and shells write unchanged, because no character needs escaping."""
_ESCAPED: Final = re.compile(r"%[0-9A-F]{2}")
_SAFE_IN_URLS: Final = (
    "",  # quote(safe=""), form fields
    "/",  # quote
    "*",  # a browser's form fields
    "!*'()",  # encodeURIComponent
    "!$&'()*+,;=",  # user and password of a URL (RFC 3986)
    "!$&'()*+,;=:",
    "!$&'()*+,;=:@",  # a path's segment
    "!$&'()*+,;=:@/",  # a path
    "!$&'()*+,;=:@/?",  # a query: httpx, requests
    "!$&'()*+,;=:@/?#",  # encodeURI
    "!$&'()*+,;=:@/?#[]%",  # requote_uri: escapes only characters that no URL may contain
)
_HTML_QUOTES: Final = ({'"': "&quot;", "'": "&#x27;"}, {'"': "&#34;", "'": "&#39;"}, {'"': "&quot;", "'": "&apos;"})
"""Ways to escape quotes: first that of html.escape, then that of markupsafe and Go, then that of XML. A secret is
searched for in each form."""


def written_forms(text: str) -> Iterator[str]:
    """Yield a secret unchanged, without surrounding spaces, and as JSON, SQL, HTML, URLs and shells quote the secret.
    Some forms come twice."""
    yield text
    yield text.strip()
    if not _PLAIN.fullmatch(text):
        yield from _json_forms(text)
        yield from _quoted_forms(text)
        yield from _html_forms(text)
        yield from _url_forms(text)


def encoded_forms(text: str) -> Iterator[str]:
    """Yield a secret in hex and base64. The base64 omits the characters that depend on neighbouring bytes, so that
    base64 of a longer text contains it too."""
    raw = text.encode("utf-8", "replace")
    encoded = [raw.hex(), raw.hex().upper(), *_base64_cores(raw)]
    yield from (form for form in encoded if len(form) >= _MIN_ENCODED)


def key_lines(text: str) -> Iterator[str]:
    """Yield the long lines of a secret of several lines, such as a key file. Redaction hides each line, because output
    may contain one line alone."""
    for line in text.splitlines():
        if len(line.strip()) >= _LINE_CHARS and not line.startswith("-----"):
            yield line.strip()


def _json_forms(text: str) -> Iterator[str]:
    for form in (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
        yield form
        yield form.replace("/", "\\/")  # PHP
        for_pages = form.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
        yield for_pages  # Go
        yield for_pages.replace("'", "\\u0027")  # the `tojson` of templates


def _quoted_forms(text: str) -> Iterator[str]:
    yield repr(text)[1:-1]  # KeyErrors, tracebacks and logs of arguments
    if "'" in text:
        yield text.replace("'", "''")  # SQL
        yield text.replace("'", "'\"'\"'")  # shlex.quote
        yield text.replace("'", "'\\''")  # the trace of a shell (set -x)
        yield text.replace("\\", "\\\\").replace("'", "\\'")  # repr of a text with both kinds of quotes, MySQL
    if '"' in text:
        yield text.replace('"', '""')  # CSV, names in SQL


def _html_forms(text: str) -> Iterator[str]:
    escaped = html.escape(text, quote=False)
    yield escaped
    for quotes in _HTML_QUOTES:
        yield escaped.replace('"', quotes['"']).replace("'", quotes["'"])


def _url_forms(text: str) -> Iterator[str]:
    # Most of the sets have the same effect on one secret: they differ in characters that the secret does not have.
    for safe in {"".join(sign for sign in signs if sign in text) for signs in _SAFE_IN_URLS}:
        form = quote(text, safe=safe, errors="replace")
        if form != text:
            yield from _url_cases(form)
    if "~" in text:
        yield from _url_cases(quote(text, safe="*", errors="replace").replace("~", "%7E"))  # a browser's forms


def _url_cases(form: str) -> Iterator[str]:
    in_lower_case = _ESCAPED.sub(lambda found: found.group().lower(), form)
    for form_text in (form, in_lower_case):
        yield form_text
        yield form_text.replace("%20", "+")  # form fields


def _base64_cores(raw: bytes) -> Iterator[str]:
    """Yield the base64 of `raw` at each of the three possible offsets in a longer text. Characters that also depend on
    neighbouring bytes are cut off."""
    for shift in range(3):
        start = (shift * 8 + 5) // 6  # the first digit without a bit of the bytes before
        end = (shift + len(raw)) * 8 // 6  # digits from here on share bits with the bytes after
        core = base64.b64encode(b"\0" * shift + raw + b"\0\0").decode()[start:end]
        yield core
        yield core.replace("+", "-").replace("/", "_")
